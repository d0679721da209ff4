//! The dialer's role: connect, identify, perhaps wait for a direct connection, ping, echo, report.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    futures::StreamExt,
    identify,
    multiaddr::Protocol,
    ping,
    swarm::{ConnectionId, DialError, SwarmEvent, dial_opts::DialOpts},
};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    echo,
    node::{self, Behaviour, BehaviourEvent},
    settings::{Failure, Settings},
};

const PINGS: usize = 3;

pub fn blank() -> Value {
    json!({
        "peer_id": null, "remote_peer_id": null, "agent": null, "protocols": [],
        "observed": null, "listen_addrs": [], "handshake_ms": null, "ping_rtt_ms": null,
        "echo_bytes": 0, "echo_ok": false, "relayed": null, "error": null,
    })
}

/// Run the whole dial, and print what is known in the end.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let mut report = blank();
    let done = match time::timeout(settings.timeout, fill(settings, &mut report)).await {
        Ok(done) => done,
        Err(_) => Err(format!("not done within {:?}", settings.timeout).into()),
    };
    if let Err(error) = &done {
        report["error"] = json!(error.to_string());
    }
    println!("{report}");
    done
}

async fn fill(settings: &Settings, report: &mut Value) -> Result<(), Failure> {
    let target = &settings.targets[0];
    let (mut node, _) = node::start(settings).await?;
    report["peer_id"] = json!(node.local_peer_id().to_string());
    if settings.hole_punch && node::is_circuit(target) {
        node::meet(&mut node, &relay_of(target)).await?;
    }
    let dial = DialOpts::from(target.clone());
    let peer = dial.get_peer_id().ok_or("TARGET must end in a peer id")?;
    report["remote_peer_id"] = json!(peer.to_string());
    let mut seen = Seen::new(peer, dial.connection_id());
    let began = Instant::now();
    node.dial(dial)?;
    seen.watch(&mut node, |seen| !seen.connections.is_empty())
        .await?;
    report["handshake_ms"] = json!(milliseconds(began.elapsed()));

    seen.watch(&mut node, |seen| seen.find(false).is_some())
        .await?;
    if !settings.direct.is_zero() {
        let direct = seen.watch(&mut node, |seen| seen.find(true).is_some());
        time::timeout(settings.direct, direct)
            .await
            .map_err(|_| format!("no direct connection within {:?}", settings.direct))??;
    }
    let chosen = seen
        .find(!settings.direct.is_zero())
        .ok_or("the connection is gone")?;
    seen.report(chosen, report);
    seen.close_others(&mut node, chosen).await?;
    if settings.echo_bytes > 0 {
        let control = node.behaviour().streams.new_control();
        let echoing = echo::run(control, peer, settings.echo_bytes);
        tokio::pin!(echoing);
        let same = loop {
            tokio::select! {
                done = &mut echoing => break done?,
                event = node.select_next_some() => seen.see(event)?,
            }
        };
        report["echo_bytes"] = json!(settings.echo_bytes);
        report["echo_ok"] = json!(same);
        if !same {
            return Err("the echo differs from what was sent".into());
        }
    }
    Ok(())
}

/// What became known of one connection to the target.
#[derive(Default)]
struct Connection {
    relayed: bool,
    info: Option<identify::Info>,
    pings: Vec<Duration>,
}

struct Seen {
    peer: PeerId,
    dialled: ConnectionId,
    connections: BTreeMap<ConnectionId, Connection>,
}

impl Seen {
    fn new(peer: PeerId, dialled: ConnectionId) -> Self {
        let connections = BTreeMap::new();
        Seen {
            peer,
            dialled,
            connections,
        }
    }

    /// Let the node run until something is true of what was seen.
    async fn watch(
        &mut self,
        node: &mut Swarm<Behaviour>,
        enough: impl Fn(&Seen) -> bool,
    ) -> Result<(), Failure> {
        while !enough(self) {
            let event = node.select_next_some().await;
            self.see(event)?;
        }
        Ok(())
    }

    fn see(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), Failure> {
        eprintln!("{event:?}");
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } if peer_id == self.peer => {
                let relayed = endpoint.is_relayed();
                let connection = Connection {
                    relayed,
                    ..Default::default()
                };
                self.connections.insert(connection_id, connection);
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                cause,
                ..
            } if self.connections.remove(&connection_id).is_some()
                && self.connections.is_empty() =>
            {
                return Err(format!("the connection was closed: {cause:?}").into());
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } if connection_id == self.dialled => return Err(describe(&error).into()),
            SwarmEvent::Behaviour(event) => self.learn(event),
            _ => {}
        }
        Ok(())
    }

    fn learn(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                info,
                ..
            }) => {
                if let Some(connection) = self.connections.get_mut(&connection_id) {
                    connection.info = Some(info);
                }
            }
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(rtt),
                ..
            }) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.pings.push(rtt);
                }
            }
            _ => {}
        }
    }

    /// A connection that is identified and was pinged often enough.
    fn find(&self, direct: bool) -> Option<ConnectionId> {
        let fits = |connection: &Connection| {
            connection.info.is_some()
                && connection.pings.len() >= PINGS
                && !(direct && connection.relayed)
        };
        let mut found = self.connections.iter().filter(|(_, it)| fits(it));
        found.next().map(|(id, _)| *id)
    }

    fn report(&self, chosen: ConnectionId, report: &mut Value) {
        let connection = &self.connections[&chosen];
        report["relayed"] = json!(connection.relayed);
        let best = connection.pings.iter().min();
        report["ping_rtt_ms"] = json!(best.map(|rtt| milliseconds(*rtt)));
        if let Some(info) = &connection.info {
            report["agent"] = json!(info.agent_version);
            report["protocols"] = json!(texts(&info.protocols));
            report["observed"] = json!(info.observed_addr.to_string());
            report["listen_addrs"] = json!(texts(&info.listen_addrs));
        }
    }

    /// A stream opens on any connection to the peer, so leave only this one.
    async fn close_others(
        &mut self,
        node: &mut Swarm<Behaviour>,
        chosen: ConnectionId,
    ) -> Result<(), Failure> {
        for id in self.connections.keys().filter(|id| **id != chosen) {
            node.close_connection(*id);
        }
        self.watch(node, |seen| seen.connections.len() == 1).await
    }
}

fn relay_of(target: &Multiaddr) -> Multiaddr {
    let before = |part: &Protocol| *part != Protocol::P2pCircuit;
    target.iter().take_while(before).collect()
}

fn describe(error: &DialError) -> String {
    format!("{error}: {error:?}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
