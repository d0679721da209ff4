//! The environment variables of the peer contract, read once and checked before anything starts.

use std::{env, str::FromStr, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What this peer can play.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    V1Client,
    V1Server,
    V2Client,
    V2Server,
}

impl Role {
    pub fn is_client(self) -> bool {
        matches!(self, Role::V1Client | Role::V2Client)
    }
}

pub struct Settings {
    pub role: Role,
    pub key: Keypair,
    pub listen: Vec<Multiaddr>,
    pub targets: Vec<Multiaddr>,
    pub verdicts: usize,
    pub timeout: Duration,
}

pub fn read() -> Result<Settings, Failure> {
    let role = match (text("ROLE", "").as_str(), text("AUTONAT", "").as_str()) {
        ("dial", "v1-client") => Role::V1Client,
        ("listen", "v1-server") => Role::V1Server,
        ("dial", "v2-client") => Role::V2Client,
        ("listen", "v2-server") => Role::V2Server,
        (role, autonat) => {
            return Err(format!("there is no ROLE={role} with AUTONAT={autonat:?} here").into());
        }
    };
    if text("SECURITY", "noise") != "noise" || text("MUXER", "yamux") != "yamux" {
        return Err("this peer speaks noise and yamux".into());
    }
    let settings = Settings {
        role,
        key: key(&text("KEY_SEED", ""))?,
        listen: addresses("LISTEN", "/ip4/127.0.0.1/tcp/0")?,
        targets: addresses("TARGET", "")?,
        verdicts: number("VERDICTS", "1")?,
        timeout: Duration::from_secs_f64(number("TIMEOUT_SECONDS", "60")?),
    };
    if role.is_client() && settings.targets.is_empty() {
        return Err("TARGET is required for ROLE=dial".into());
    }
    Ok(settings)
}

fn text(name: &str, default: &str) -> String {
    env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| default.into())
}

fn number<T: FromStr>(name: &str, default: &str) -> Result<T, Failure> {
    text(name, default)
        .parse()
        .map_err(|_| format!("{name} must be a number").into())
}

fn addresses(name: &str, default: &str) -> Result<Vec<Multiaddr>, Failure> {
    let texts = text(name, default);
    let parsed = texts
        .split(',')
        .filter(|text| !text.is_empty())
        .map(Multiaddr::from_str);
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{name}: {error}").into())
}

fn key(seed: &str) -> Result<Keypair, Failure> {
    if seed.is_empty() {
        return Ok(Keypair::generate_ed25519());
    }
    let wrong = "KEY_SEED must be 64 hex digits"; // and is not repeated: it is a secret
    if seed.len() != 64 || !seed.is_ascii() {
        return Err(wrong.into());
    }
    let digits = (0..32).map(|i| u8::from_str_radix(&seed[2 * i..2 * i + 2], 16));
    let bytes = digits.collect::<Result<Vec<u8>, _>>().map_err(|_| wrong)?;
    Ok(Keypair::ed25519_from_bytes(bytes)?)
}
