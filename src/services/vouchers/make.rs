//! Vouchers made, listed, withdrawn.

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use serde_json::json;

use super::{VoucherError, VoucherService};
pub use crate::repositories::VoucherFilter;
use crate::{
    domain::{
        audit::{Action, Actor, Event},
        id::{BatchId, VoucherId},
        money::Amount,
        page::{Page, PageRequest},
        pass::MAX_HOURS,
        token::{PlainToken, TokenHash},
        voucher::{Gift, Voucher, generate_code, hash_code},
    },
    repositories::Repositories as _,
    services::key_input::FieldError,
};

/// Most vouchers of one batch.
pub const MAX_COUNT: u32 = 1000;
/// Most uses: what the document's 32-bit integer can say.
const MAX_USES: u32 = i32::MAX.unsigned_abs();
/// Most characters of a note.
const MAX_NOTE: usize = 500;
/// Characters of the code that may be shown: one group, which leaves 60 bits.
const PREFIX_LEN: usize = 4;

/// What an operator asks for; checked by [`VoucherService::make`].
#[derive(Clone, Debug)]
pub struct NewVouchers {
    pub count: u32,
    /// Minor units. Either this or a duration.
    pub amount_minor: Option<i64>,
    pub duration_hours: Option<u32>,
    /// With a duration: the one upstream that the pass opens.
    pub upstream: Option<String>,
    pub expires_at: Option<DateTime<Utc>>,
    pub max_uses: u32,
    pub max_uses_per_user: u32,
    pub note: Option<String>,
}

/// Vouchers that were made together.
#[derive(Debug)]
pub struct Batch {
    pub id: BatchId,
    /// With their codes, which are nowhere else.
    pub vouchers: Vec<(Voucher, PlainToken)>,
}

impl VoucherService {
    /// Makes a batch, all of it or nothing.
    ///
    /// # Errors
    /// [`VoucherError::Invalid`] names every field that is wrong.
    pub async fn make(&self, by: &Actor, new: NewVouchers) -> Result<Batch, VoucherError> {
        let now = self.clock.now();
        let gift = self.check(&new, now).map_err(VoucherError::Invalid)?;
        let id = BatchId::new(now);
        let one = || {
            let code = generate_code(&mut rand::rng());
            let voucher = Voucher {
                id: VoucherId::new(now),
                prefix: code.expose().chars().take(PREFIX_LEN).collect(),
                batch_id: id,
                note: new.note.clone(),
                gift: gift.clone(),
                // Microseconds, as both engines can keep them.
                expires_at: new.expires_at.map(|at| at.trunc_subsecs(6)),
                max_uses: new.max_uses,
                max_uses_per_user: new.max_uses_per_user,
                uses: 0,
                created_by: by.id,
                created_at: now,
                revoked_at: None,
            };
            (voucher, code)
        };
        let vouchers: Vec<_> = (0..new.count).map(|_| one()).collect();
        let rows: Vec<_> = vouchers.iter().map(|(voucher, code)| (voucher, hash(code))).collect();
        let mut tx = self.db.begin().await?;
        tx.vouchers().insert_all(&rows).await?;
        let event = Event::new(Action::VouchersCreated, "voucher_batch", id).after(state(&new));
        self.audit.commit(tx, by, event).await?;
        Ok(Batch { id, vouchers })
    }

    /// Newest first, without their codes.
    pub async fn list(
        &self,
        filter: VoucherFilter,
        page: PageRequest,
    ) -> Result<Page<Voucher>, VoucherError> {
        Ok(self.db.session().await?.vouchers().list(filter, page).await?)
    }

    /// Stops a voucher from being redeemed; what was redeemed stays. Asked again
    /// it changes nothing.
    pub async fn revoke(&self, by: &Actor, id: VoucherId) -> Result<Voucher, VoucherError> {
        let mut tx = self.db.begin().await?;
        let ended = tx.vouchers().revoke(id, self.clock.now()).await?;
        let voucher = tx.vouchers().find(id).await?.ok_or(VoucherError::NotFound)?;
        if ended {
            let Voucher { prefix, batch_id, uses, .. } = &voucher;
            let state = json!({ "prefix": prefix, "batch_id": batch_id, "uses": uses });
            let event = Event::new(Action::VoucherRevoked, "voucher", id).before(state);
            self.audit.commit(tx, by, event).await?;
        }
        Ok(voucher)
    }

    /// What it gives, or every field that is wrong.
    fn check(&self, new: &NewVouchers, now: DateTime<Utc>) -> Result<Gift, Vec<FieldError>> {
        let mut wrong = vec![];
        let mut check = |field, holds: bool, message| {
            if !holds {
                wrong.push(FieldError { field, message });
            }
        };
        check("count", (1..=MAX_COUNT).contains(&new.count), "must be 1 to 1000");
        let either = new.amount_minor.is_some() != new.duration_hours.is_some();
        check("amount_minor", either, "must be given, or else duration_hours, not both");
        let fits = new.amount_minor.is_none_or(|minor| Amount::new(minor).is_some());
        check("amount_minor", fits, "must be 1 to 1000000000000");
        let fits = new.duration_hours.is_none_or(|hours| (1..=MAX_HOURS).contains(&hours));
        check("duration_hours", fits, "must be 1 to 87600");
        let fits = new.upstream.is_none() || new.duration_hours.is_some();
        check("upstream", fits, "goes with duration_hours only");
        let known = self.passes.check_upstream(new.upstream.as_deref()).is_ok();
        check("upstream", known, "there is no upstream of this name");
        let fits = new.expires_at.is_none_or(|at| at > now && at.year() <= 9999);
        check("expires_at", fits, "must lie in the future, before the year 10000");
        let uses = |uses| (1..=MAX_USES).contains(&uses);
        check("max_uses", uses(new.max_uses), "must be 1 to 2147483647");
        check("max_uses_per_user", uses(new.max_uses_per_user), "must be 1 to 2147483647");
        let fits = new.note.as_ref().is_none_or(|note| {
            note.chars().count() <= MAX_NOTE && !note.chars().any(char::is_control)
        });
        check("note", fits, "must have at most 500 characters, none of them control characters");
        match (wrong.is_empty(), new.amount_minor, new.duration_hours) {
            (true, Some(minor), _) => Ok(Gift::Balance(minor)),
            (true, None, Some(duration_hours)) => {
                Ok(Gift::Pass { duration_hours, upstream: new.upstream.clone() })
            }
            _ => Err(wrong),
        }
    }
}

fn hash(code: &PlainToken) -> TokenHash {
    hash_code(code.expose()).expect("a code that was just made")
}

/// What may be told of new vouchers: not their codes.
fn state(new: &NewVouchers) -> serde_json::Value {
    let NewVouchers { count, amount_minor, duration_hours, upstream, expires_at, note, .. } = new;
    json!({
        "count": count,
        "amount_minor": amount_minor,
        "duration_hours": duration_hours,
        "upstream": upstream,
        "expires_at": expires_at,
        "max_uses": new.max_uses,
        "max_uses_per_user": new.max_uses_per_user,
        "note": note,
    })
}
