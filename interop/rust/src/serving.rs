//! The roles of the listener and the relay, and of the AutoNAT server.

use libp2p::futures::StreamExt;
use serde_json::json;
use tokio::{
    io,
    signal::unix::{SignalKind, signal},
    time,
};

use crate::{
    node,
    settings::{Failure, Settings},
};

/// Print the ready line, and serve until stdin ends or SIGTERM comes.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let (mut node, addresses) = node::start(settings).await?;
    let id = *node.local_peer_id();
    let mut circuits = Vec::new();
    if let Some(relay) = &settings.relay {
        let reserved = time::timeout(settings.timeout, node::reserve(&mut node, relay)).await??;
        circuits.push(reserved.to_string());
    }
    let full = addresses
        .iter()
        .map(|address| format!("{address}/p2p/{id}"));
    let line = json!({
        "peer_id": id.to_string(),
        "addresses": full.collect::<Vec<_>>(),
        "circuit_addresses": circuits,
    });
    println!("{line}");
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
