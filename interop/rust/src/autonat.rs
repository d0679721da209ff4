//! The role of an AutoNAT client.

use std::collections::BTreeMap;

use libp2p::{
    Swarm,
    autonat::{NatStatus, v1, v2},
    futures::StreamExt,
    swarm::SwarmEvent,
};
use serde_json::{Value, json};

use crate::{
    node::{self, Behaviour, BehaviourEvent},
    settings::{Failure, Settings},
};

const V1: &str = "/libp2p/autonat/1.0.0";
const V2: &str = "/libp2p/autonat/2/dial-request";

/// What is known of each address; version 1 may speak of none in particular.
type Learnt = BTreeMap<Option<String>, (bool, &'static str)>;

/// Connect to the servers, wait until enough is known of our own addresses, and print it.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let mut learnt = Learnt::new();
    let (mut node, _) = node::start(settings).await?;
    let id = node.local_peer_id().to_string();
    let done = tokio::time::timeout(settings.timeout, ask(&mut node, settings, &mut learnt)).await;
    let error = match done {
        Ok(done) => done.err().map(|error| error.to_string()),
        Err(_) => Some(format!(
            "only {} of {} verdicts",
            learnt.len(),
            settings.verdicts
        )),
    };
    let lessons: Vec<Value> = learnt
        .into_iter()
        .map(|(address, (reached, protocol))| {
            let reachability = if reached { "public" } else { "private" };
            json!({"address": address, "reachability": reachability, "protocol": protocol})
        })
        .collect();
    println!(
        "{}",
        json!({"peer_id": id, "learnt": lessons, "error": error})
    );
    error.map_or(Ok(()), |error| Err(error.into()))
}

async fn ask(
    node: &mut Swarm<Behaviour>,
    settings: &Settings,
    learnt: &mut Learnt,
) -> Result<(), Failure> {
    for target in &settings.targets {
        node.dial(target.clone())?;
    }
    while learnt.len() < settings.verdicts {
        let event = node.select_next_some().await;
        eprintln!("{event:?}");
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::AutonatV1(event)) => learn_v1(event, learnt),
            SwarmEvent::Behaviour(BehaviourEvent::ClientV2(event)) => learn_v2(event, learnt),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn learn_v1(event: v1::Event, learnt: &mut Learnt) {
    let v1::Event::StatusChanged { new, .. } = event else {
        return;
    };
    match new {
        NatStatus::Public(address) => learnt.insert(Some(address.to_string()), (true, V1)),
        NatStatus::Private => learnt.insert(None, (false, V1)),
        NatStatus::Unknown => None,
    };
}

fn learn_v2(event: v2::client::Event, learnt: &mut Learnt) {
    learnt.insert(
        Some(event.tested_addr.to_string()),
        (event.result.is_ok(), V2),
    );
}
