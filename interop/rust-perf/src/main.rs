//! rust-libp2p's own perf under the contract of the interoperability tests: settings come in
//! environment variables, one JSON line goes out on stdout, logs go to stderr.

use std::{env, error::Error, process::ExitCode, str::FromStr, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    futures::StreamExt,
    identify,
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use libp2p_perf::{
    RunParams, RunUpdate,
    client::{self, RunId},
    server,
};
use serde_json::{Value, json};
use tokio::{
    io,
    signal::unix::{SignalKind, signal},
    time,
};

type Failure = Box<dyn Error + Send + Sync>;

const AGENT: &str = "p2pnet-interop-rust-perf/1 libp2p-perf/0.3.0";
const DEFAULT_LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// Long enough for all that is to happen on a connection of a test.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    asking: client::Behaviour,
    serving: server::Behaviour,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match text("ROLE", "").as_str() {
        "listen" => serve().await,
        "dial" => dial().await,
        other => Err(format!("there is no ROLE={other} here").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A node that offers both Noise and TLS; the other side has but one of them.
fn start() -> Result<Swarm<Behaviour>, Failure> {
    let node = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )?
        .with_quic()
        .with_behaviour(|key| {
            let about = identify::Config::new("/p2pnet/interop/1".into(), key.public());
            Behaviour {
                identify: identify::Behaviour::new(about.with_agent_version(AGENT.into())),
                ping: ping::Behaviour::default(),
                asking: client::Behaviour::default(),
                serving: server::Behaviour::default(),
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(node)
}

/// Print the ready line, and serve until stdin ends or SIGTERM comes.
async fn serve() -> Result<(), Failure> {
    let mut node = start()?;
    let id = *node.local_peer_id();
    node.listen_on(parsed("LISTEN", DEFAULT_LISTEN)?)?;
    let address = loop {
        match node.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => break address,
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            } => return Err(error.into()),
            _ => {}
        }
    };
    let full = format!("{address}/p2p/{id}");
    println!(
        "{}",
        json!({"peer_id": id.to_string(), "addresses": [full], "circuit_addresses": []})
    );
    let mut terminated = signal(SignalKind::terminate())?;
    let (mut input, mut nowhere) = (io::stdin(), io::sink());
    let ended = io::copy(&mut input, &mut nowhere);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            event = node.select_next_some() => eprintln!("{event:?}"),
            _ = terminated.recv() => break,
            _ = &mut ended => break,
        }
    }
    // Reading stdin blocks a thread, for which the runtime would wait.
    std::process::exit(0)
}

/// Connect, run perf once, and print what is known in the end.
async fn dial() -> Result<(), Failure> {
    let mut report = json!({
        "peer_id": null, "remote_peer_id": null, "perf_uploaded": null, "perf_downloaded": null,
        "error": null,
    });
    let limit = Duration::from_secs_f64(parsed("TIMEOUT_SECONDS", "60")?);
    let done = match time::timeout(limit, measure(&mut report)).await {
        Ok(done) => done,
        Err(_) => Err(format!("not done within {limit:?}").into()),
    };
    if let Err(error) = &done {
        report["error"] = json!(error.to_string());
    }
    println!("{report}");
    done
}

async fn measure(report: &mut Value) -> Result<(), Failure> {
    let target: Multiaddr = parsed("TARGET", "")?;
    let wanted = RunParams {
        to_send: parsed("PERF_UPLOAD", "0")?,
        to_receive: parsed("PERF_DOWNLOAD", "0")?,
    };
    let Some(Protocol::P2p(peer)) = target.iter().last() else {
        return Err("TARGET must end in a peer id".into());
    };
    let mut node = start()?;
    report["peer_id"] = json!(node.local_peer_id().to_string());
    report["remote_peer_id"] = json!(peer.to_string());
    node.dial(target)?;
    let mut run: Option<RunId> = None;
    loop {
        let event = node.select_next_some().await;
        eprintln!("{event:?}");
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                run = Some(begin(&mut node, peer, wanted)?);
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            SwarmEvent::ConnectionClosed { cause, .. } => {
                return Err(format!("the connection was closed: {cause:?}").into());
            }
            SwarmEvent::Behaviour(BehaviourEvent::Asking(event)) if Some(event.id) == run => {
                if let RunUpdate::Final(_) = event.result? {
                    break;
                }
            }
            _ => {}
        }
    }
    report["perf_uploaded"] = json!(wanted.to_send);
    report["perf_downloaded"] = json!(wanted.to_receive);
    Ok(())
}

fn begin(node: &mut Swarm<Behaviour>, peer: PeerId, wanted: RunParams) -> Result<RunId, Failure> {
    Ok(node.behaviour_mut().asking.perf(peer, wanted)?)
}

fn text(name: &str, default: &str) -> String {
    let given = env::var(name).ok().filter(|text| !text.is_empty());
    given.unwrap_or_else(|| default.into())
}

fn parsed<T: FromStr>(name: &str, default: &str) -> Result<T, Failure> {
    let text = text(name, default);
    text.parse()
        .map_err(|_| format!("{name}={text} is not what it has to be").into())
}
