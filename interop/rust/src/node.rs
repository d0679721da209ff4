//! A rust-libp2p node with identify, ping, and the AutoNAT that its role asks for.

use std::time::Duration;

use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    autonat::{self, v1, v2},
    futures::StreamExt,
    identify, noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, yamux,
};

use crate::settings::{Failure, Role, Settings};

const AGENT: &str = "p2pnet-interop-rust/1 rust-libp2p/0.57.1";
const NEVER: Duration = Duration::from_secs(86_400);

/// A dial into silence must end before the ten seconds do that a request of AutoNAT v2 may take, or
/// rust-libp2p forgets the request without an answer. Its default is ten seconds as well.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Long enough for all that is to happen on a connection of a test.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    autonat_v1: Toggle<v1::Behaviour>,
    client_v2: Toggle<v2::client::Behaviour>,
    server_v2: Toggle<v2::server::Behaviour>,
}

/// Start a node, and have it listen.
pub async fn start(settings: &Settings) -> Result<(Swarm<Behaviour>, Vec<Multiaddr>), Failure> {
    let role = settings.role;
    let mut node = SwarmBuilder::with_existing_identity(settings.key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|key| {
            let about = identify::Config::new("/p2pnet/interop/1".into(), key.public());
            let id = key.public().to_peer_id();
            Behaviour {
                identify: identify::Behaviour::new(about.with_agent_version(AGENT.into())),
                ping: ping::Behaviour::default(),
                autonat_v1: version_1(role)
                    .map(|config| v1::Behaviour::new(id, config))
                    .into(),
                client_v2: (role == Role::V2Client)
                    .then(v2::client::Behaviour::default)
                    .into(),
                server_v2: (role == Role::V2Server)
                    .then(v2::server::Behaviour::default)
                    .into(),
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .with_connection_timeout(CONNECTION_TIMEOUT)
        .build();
    let addresses = listen(&mut node, &settings.listen).await?;
    Ok((node, addresses))
}

/// Version 1 is client and server in one: a server just never asks.
fn version_1(role: Role) -> Option<autonat::Config> {
    let boot_delay = match role {
        Role::V1Client => Duration::from_secs(2),
        Role::V1Server => NEVER,
        Role::V2Client | Role::V2Server => return None,
    };
    let retry_interval = Duration::from_secs(5);
    Some(autonat::Config {
        boot_delay,
        retry_interval,
        ..Default::default()
    })
}

/// Return the first address of each listener.
async fn listen(
    node: &mut Swarm<Behaviour>,
    wanted: &[Multiaddr],
) -> Result<Vec<Multiaddr>, Failure> {
    let mut listeners = Vec::new();
    for address in wanted {
        listeners.push(node.listen_on(address.clone())?);
    }
    let mut found = Vec::new();
    while !listeners.is_empty() {
        match node.select_next_some().await {
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                if let Some(at) = listeners.iter().position(|id| *id == listener_id) {
                    listeners.remove(at);
                    found.push(address);
                }
            }
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(found)
}
