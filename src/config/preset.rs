//! What well-known backends need, in one word.
//!
//! A preset only changes defaults: whatever the operator sets holds.

use std::time::Duration;

use super::{HeaderChanges, HostHeader, reader::Parsed, upstream::HealthCheck};

/// A backend whose needs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    ComfyUi,
    N8n,
    Jupyter,
    Ollama,
}

/// Defaults of the settings of an upstream.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub first_byte_timeout: Duration,
    pub total_timeout: Duration,
    pub max_body_bytes: u64,
    pub max_message_bytes: u64,
    pub max_frame_bytes: u64,
    pub sockets_per_credential: usize,
    pub max_cookie_bytes: Option<usize>,
    pub host: HostHeader,
    pub request_headers: HeaderChanges,
    pub health: Option<HealthCheck>,
}

const MIB: u64 = 1024 * 1024;

impl Preset {
    pub(super) const ALL: [Self; 4] = [Self::ComfyUi, Self::N8n, Self::Jupyter, Self::Ollama];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ComfyUi => "comfyui",
            Self::N8n => "n8n",
            Self::Jupyter => "jupyter",
            Self::Ollama => "ollama",
        }
    }

    pub(super) fn parse(text: &str) -> Parsed<Self> {
        let known = Self::ALL.into_iter().find(|preset| preset.as_str() == text);
        known.ok_or_else(|| "expected comfyui, n8n, jupyter or ollama".to_owned())
    }
}

impl Defaults {
    pub fn of(preset: Option<Preset>) -> Self {
        let plain = Self {
            first_byte_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(1),
            max_body_bytes: 10 * MIB,
            max_message_bytes: MIB,
            max_frame_bytes: MIB / 4,
            sockets_per_credential: 5,
            max_cookie_bytes: None,
            host: HostHeader::Target,
            request_headers: HeaderChanges::default(),
            health: None,
        };
        let long = Duration::from_mins(10);
        match preset {
            None => plain,
            // Uploads of models and videos; previews come as large frames. Its
            // server refuses requests with a line of more than 8,190 bytes. A socket
            // per open page.
            Some(Preset::ComfyUi) => Self {
                max_cookie_bytes: Some(8000),
                max_body_bytes: 4096 * MIB,
                max_message_bytes: 16 * MIB,
                max_frame_bytes: 16 * MIB,
                sockets_per_credential: 16,
                total_timeout: long,
                ..plain
            },
            // A workflow answers when it is done; its own body limit is 16 MiB. It
            // compares `Origin` with `X-Forwarded-Host`, so all must be the client's.
            Some(Preset::N8n) => Self {
                host: HostHeader::Client,
                first_byte_timeout: Duration::from_mins(2),
                total_timeout: Duration::from_mins(5),
                max_body_bytes: 16 * MIB,
                ..plain
            },
            // Kernels send outputs as single messages; notebooks are saved whole. A
            // page has a socket for each kernel, terminal and shared document, and
            // one for events.
            Some(Preset::Jupyter) => Self {
                max_body_bytes: 512 * MIB,
                max_message_bytes: 64 * MIB,
                max_frame_bytes: 64 * MIB,
                sockets_per_credential: 64,
                total_timeout: long,
                ..plain
            },
            // A model is loaded before the first token.
            Some(Preset::Ollama) => Self {
                first_byte_timeout: long,
                total_timeout: Duration::from_hours(1),
                max_body_bytes: 64 * MIB,
                ..plain
            },
        }
    }
}
