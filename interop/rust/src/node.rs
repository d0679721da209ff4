//! A rust-libp2p node with identify, ping, echo, circuits, and what else its role asks for.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId, Swarm,
    autonat::{self, v1, v2},
    dcutr,
    futures::StreamExt,
    identify,
    multiaddr::Protocol,
    ping, relay,
    swarm::{self, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle, dial_opts::DialOpts},
};

use crate::{
    echo,
    settings::{AutoNat, Failure, Role, Settings},
    transport,
};

const AGENT: &str = "p2pnet-interop-rust/1 rust-libp2p/0.57.1";
const NEVER: Duration = Duration::from_secs(86_400);

/// Long enough for all that is to happen on a connection of a test.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// A dialer waits for three of them.
const PING_INTERVAL: Duration = Duration::from_millis(50);

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub streams: libp2p_stream::Behaviour,
    relay_client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: Toggle<dcutr::Behaviour>,
    autonat_v1: Toggle<v1::Behaviour>,
    client_v2: Toggle<v2::client::Behaviour>,
    server_v2: Toggle<v2::server::Behaviour>,
}

/// Start a node, have it listen, and return the first address of each listener.
pub async fn start(settings: &Settings) -> Result<(Swarm<Behaviour>, Vec<Multiaddr>), Failure> {
    let id = settings.key.public().to_peer_id();
    let (circuits, relay_client) = relay::client::new(id);
    let mut node = Swarm::new(
        transport::build(settings, circuits)?,
        behaviour(settings, id, relay_client),
        id,
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT),
    );
    let incoming = node
        .behaviour()
        .streams
        .new_control()
        .accept(echo::PROTOCOL)?;
    tokio::spawn(echo::serve(incoming));
    let addresses = listen(&mut node, &settings.listen).await?;
    if settings.role == Role::Relay {
        for address in &addresses {
            node.add_external_address(address.clone()); // what it hands out with a reservation
        }
    }
    Ok((node, addresses))
}

fn behaviour(settings: &Settings, id: PeerId, relay_client: relay::client::Behaviour) -> Behaviour {
    let about = identify::Config::new("/p2pnet/interop/1".into(), settings.key.public());
    let pings = match (settings.role, settings.autonat) {
        (Role::Dial, None) => ping::Config::new().with_interval(PING_INTERVAL),
        _ => ping::Config::new(),
    };
    let relaying = (settings.role == Role::Relay).then(|| relaying(settings.relay_limited));
    let autonat = settings.autonat;
    Behaviour {
        identify: identify::Behaviour::new(about.with_agent_version(AGENT.into())),
        ping: ping::Behaviour::new(pings),
        streams: libp2p_stream::Behaviour::new(),
        relay_client,
        relay: relaying
            .map(|config| relay::Behaviour::new(id, config))
            .into(),
        dcutr: settings
            .hole_punch
            .then(|| dcutr::Behaviour::new(id))
            .into(),
        autonat_v1: version_1(autonat)
            .map(|config| v1::Behaviour::new(id, config))
            .into(),
        client_v2: (autonat == Some(AutoNat::V2Client))
            .then(v2::client::Behaviour::default)
            .into(),
        server_v2: (autonat == Some(AutoNat::V2Server))
            .then(v2::server::Behaviour::default)
            .into(),
    }
}

fn relaying(limited: bool) -> relay::Config {
    let mut config = relay::Config::default();
    if !limited {
        config.max_circuit_bytes = 0;
        config.max_circuit_duration = NEVER;
    }
    config
}

/// Version 1 is client and server in one: a server just never asks.
fn version_1(part: Option<AutoNat>) -> Option<autonat::Config> {
    let boot_delay = match part {
        Some(AutoNat::V1Client) => Duration::from_secs(2),
        Some(AutoNat::V1Server) => NEVER,
        _ => return None,
    };
    let retry_interval = Duration::from_secs(5);
    Some(autonat::Config {
        boot_delay,
        retry_interval,
        ..Default::default()
    })
}

async fn listen(
    node: &mut Swarm<Behaviour>,
    wanted: &[Multiaddr],
) -> Result<Vec<Multiaddr>, Failure> {
    let mut found = Vec::new();
    for address in wanted {
        let listener = node.listen_on(address.clone())?;
        found.push(loop {
            match node.select_next_some().await {
                SwarmEvent::NewListenAddr {
                    listener_id,
                    address,
                } if listener_id == listener => break address,
                SwarmEvent::ListenerClosed {
                    reason: Err(error), ..
                } => return Err(error.into()),
                _ => {}
            }
        });
    }
    Ok(found)
}

/// Connect to a relay, and wait until both have said who they are: from the relay comes the address
/// to punch at, and to the relay goes what it needs.
pub async fn meet(node: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<PeerId, Failure> {
    let dial = DialOpts::from(relay.clone());
    let (id, dialled) = (dial.get_peer_id(), dial.connection_id());
    let id = id.ok_or("a relay's address must end in its peer id")?;
    node.dial(dial)?;
    let (mut told, mut learnt) = (false, false);
    while !(told && learnt) {
        let event = node.select_next_some().await;
        eprintln!("{event:?}");
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => match event {
                identify::Event::Sent { peer_id, .. } if peer_id == id => told = true,
                identify::Event::Received { peer_id, .. } if peer_id == id => learnt = true,
                _ => {}
            },
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } if connection_id == dialled => return Err(error.into()),
            _ => {}
        }
    }
    Ok(id)
}

/// Take a place at a relay, and return the address to be found at through it.
pub async fn reserve(node: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<Multiaddr, Failure> {
    let id = meet(node, relay).await?;
    let circuit = relay.clone().with(Protocol::P2pCircuit);
    let listener = node.listen_on(circuit.clone())?;
    loop {
        let event = node.select_next_some().await;
        eprintln!("{event:?}");
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(
                relay::client::Event::ReservationReqAccepted { relay_peer_id, .. },
            )) if relay_peer_id == id => {
                return Ok(circuit.with(Protocol::P2p(*node.local_peer_id())));
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } if listener_id == listener => {
                return Err(format!("no reservation: {reason:?}").into());
            }
            _ => {}
        }
    }
}

pub fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}
