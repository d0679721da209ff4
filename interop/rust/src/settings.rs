//! The environment variables of the peer contract, read once and checked before anything starts.

use std::{env, fs, str::FromStr, time::Duration};

use libp2p::{Multiaddr, identity::Keypair, pnet::PreSharedKey};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Listen,
    Dial,
    Relay,
}

/// The part that a peer plays in AutoNAT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AutoNat {
    V1Client,
    V1Server,
    V2Client,
    V2Server,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Noise,
    Tls,
}

pub struct Settings {
    pub role: Role,
    pub autonat: Option<AutoNat>,
    pub key: Keypair,
    pub listen: Vec<Multiaddr>,
    pub targets: Vec<Multiaddr>,
    pub relay: Option<Multiaddr>,
    pub security: Security,
    pub psk: Option<PreSharedKey>,
    pub echo_bytes: u64,
    pub hole_punch: bool,
    /// Zero means that any connection will do.
    pub direct: Duration,
    pub timeout: Duration,
    pub relay_limited: bool,
    pub verdicts: usize,
}

pub fn read() -> Result<Settings, Failure> {
    choose("MUXER", "yamux", &[("yamux", ())])?;
    let role = choose(
        "ROLE",
        "",
        &[
            ("listen", Role::Listen),
            ("dial", Role::Dial),
            ("relay", Role::Relay),
        ],
    )?;
    let hole_punch = flag("HOLE_PUNCH", "0")?;
    let settings = Settings {
        role,
        autonat: autonat(role)?,
        key: key(&text("KEY_SEED", ""))?,
        listen: addresses("LISTEN", default_listen(role, hole_punch))?,
        targets: addresses("TARGET", "")?,
        relay: addresses("RELAY", "")?.pop(),
        security: choose(
            "SECURITY",
            "noise",
            &[("noise", Security::Noise), ("tls", Security::Tls)],
        )?,
        psk: psk(&text("PSK_FILE", ""))?,
        echo_bytes: number("ECHO_BYTES", "10485760")?,
        hole_punch,
        direct: seconds("DIRECT_SECONDS", "0")?,
        timeout: seconds("TIMEOUT_SECONDS", "60")?,
        relay_limited: flag("RELAY_LIMITED", "1")?,
        verdicts: number("VERDICTS", "1")?,
    };
    match (role, settings.autonat, settings.targets.len()) {
        (Role::Dial, _, 0) => Err("TARGET is required for ROLE=dial".into()),
        (Role::Dial, None, 2..) => Err("TARGET must be one multiaddr without AUTONAT".into()),
        _ => Ok(settings),
    }
}

/// A dialer listens only if told so, except that it punches holes from the port it listens on.
fn default_listen(role: Role, hole_punch: bool) -> &'static str {
    match (role, hole_punch) {
        (_, true) => "/ip4/0.0.0.0/tcp/0",
        (Role::Dial, false) => "",
        _ => "/ip4/127.0.0.1/tcp/0",
    }
}

fn autonat(role: Role) -> Result<Option<AutoNat>, Failure> {
    match (role, text("AUTONAT", "").as_str()) {
        (_, "") => Ok(None),
        (Role::Dial, "v1-client") => Ok(Some(AutoNat::V1Client)),
        (Role::Dial, "v2-client") => Ok(Some(AutoNat::V2Client)),
        (Role::Listen, "v1-server") => Ok(Some(AutoNat::V1Server)),
        (Role::Listen, "v2-server") => Ok(Some(AutoNat::V2Server)),
        (_, other) => Err(format!("in this role there is no AUTONAT={other}").into()),
    }
}

fn text(name: &str, default: &str) -> String {
    env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| default.into())
}

fn choose<T: Copy>(name: &str, default: &str, choices: &[(&str, T)]) -> Result<T, Failure> {
    let text = text(name, default);
    choices
        .iter()
        .find(|(choice, _)| *choice == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("there is no {name}={text} here").into())
}

fn flag(name: &str, default: &str) -> Result<bool, Failure> {
    choose(name, default, &[("0", false), ("1", true)])
}

fn number<T: FromStr>(name: &str, default: &str) -> Result<T, Failure> {
    text(name, default)
        .parse()
        .map_err(|_| format!("{name} must be a number").into())
}

fn seconds(name: &str, default: &str) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(number(name, default)?)
        .map_err(|error| format!("{name}: {error}").into())
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

fn psk(path: &str) -> Result<Option<PreSharedKey>, Failure> {
    if path.is_empty() {
        return Ok(None);
    }
    let file = fs::read_to_string(path).map_err(|error| format!("PSK_FILE: {error}"))?;
    let key = file.parse().map_err(|error| format!("PSK_FILE: {error}"))?;
    Ok(Some(key))
}
