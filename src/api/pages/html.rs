//! The pages as HTML. Everything that is put into them is escaped.
//!
//! They work without a script: forms with labels, native controls, the colours
//! of the reader's system.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Base, Site};

/// The login page.
pub struct SignIn<'a> {
    pub base: Base,
    /// Proof that the form came from here.
    pub token: &'a str,
    /// Where to go afterwards.
    pub next: Option<&'a str>,
    /// What was typed in as the name before.
    pub name: &'a str,
    /// Why the last attempt came to nothing.
    pub problem: Option<&'a str>,
    /// Who is signed in already.
    pub who: Option<&'a str>,
}

impl SignIn<'_> {
    pub fn page(&self, site: &Site) -> Markup {
        let Self { name, problem, who, .. } = self;
        let title = if problem.is_some() { "Error: Sign in" } else { "Sign in" };
        let invalid = problem.map(|_| "true");
        let described = problem.map(|_| "problem");
        let body = html! {
            h1 { "Sign in" }
            @if let Some(problem) = problem {
                p role="alert" id="problem" { (problem) }
            }
            @if let Some(who) = who {
                p {
                    "You are signed in as " strong { (who) } ". "
                    a href=(self.next.unwrap_or(&site.home)) { "Continue" }
                    " or " a href=(self.base.sign_out()) { "sign out" } "."
                }
            }
            form method="post" action=(self.base.sign_in()) {
                (self.hidden())
                label for="username" { "Username or e-mail address" }
                input id="username" name="username" type="text" value=(name) required
                    autocomplete="username" autocapitalize="none" spellcheck="false"
                    maxlength="254" autofocus[name.is_empty()]
                    aria-invalid=[invalid] aria-describedby=[described];
                label for="password" { "Password" }
                input id="password" name="password" type="password" required
                    autocomplete="current-password" maxlength="1024" autofocus[!name.is_empty()]
                    aria-invalid=[invalid] aria-describedby=[described];
                button type="submit" { "Sign in" }
            }
            h2 { "With an access token" }
            form method="post" action=(self.base.sign_in()) {
                (self.hidden())
                label for="access_token" { "Access token" }
                input id="access_token" name="access_token" type="text" required
                    autocomplete="off" autocapitalize="none" spellcheck="false" maxlength="100"
                    aria-invalid=[invalid] aria-describedby=[described];
                button type="submit" { "Continue" }
            }
        };
        whole(site, title, &body)
    }

    fn hidden(&self) -> Markup {
        html! {
            input type="hidden" name="form" value=(self.token);
            @if let Some(next) = self.next {
                input type="hidden" name="next" value=(next);
            }
        }
    }
}

/// The page that asks whether to sign out.
pub fn sign_out(site: &Site, base: Base, token: &str, who: Option<&str>) -> Markup {
    let body = html! {
        h1 { "Sign out" }
        @if let Some(who) = who {
            p { "You are signed in as " strong { (who) } "." }
            form method="post" action=(base.sign_out()) {
                input type="hidden" name="form" value=(token);
                button type="submit" { "Sign out" }
            }
        } @else {
            p { "You are not signed in. " a href=(base.sign_in()) { "Sign in" } }
        }
    };
    whole(site, "Sign out", &body)
}

/// A page about a request that came to nothing.
pub fn failure(site: &Site, base: Base, title: &str, detail: &str) -> Markup {
    let body = html! {
        h1 { (title) }
        p role="alert" { (detail) }
        p { a href=(base.sign_in()) { "Sign in" } }
    };
    whole(site, title, &body)
}

fn whole(site: &Site, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) " – " (site.name) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                // Without it a browser would ask the upstream for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(&site.style)) }
            }
            body {
                main {
                    p.site { (site.name) }
                    (body)
                }
            }
        }
    }
}
