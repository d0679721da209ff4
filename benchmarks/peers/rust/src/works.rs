//! What a driver is asked to do.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    futures::{AsyncReadExt, AsyncWriteExt, future::try_join_all},
    multiaddr::Protocol,
};
use libp2p_stream::Control;
use serde_json::{Value, json};

use crate::{
    Failure,
    node::Node,
    streams::{ECHO, SINK, SMALL, SOURCE, drain, read_number, send_zeros},
};

pub struct Driver {
    nodes: Vec<Node>,
    held: Vec<(usize, PeerId)>,
}

impl Driver {
    pub fn new(nodes: Vec<Node>) -> Self {
        let held = Vec::new();
        Self { nodes, held }
    }

    pub async fn take(&mut self, request: &Value) -> Result<Value, Failure> {
        let work = request["work"].as_str().unwrap_or_default();
        match work {
            "collect" => return Ok(json!({"seconds": 0.0})), // There is no garbage.
            "hold" => return self.hold(&request["addresses"]).await,
            "release" => return self.release().await,
            _ => {}
        }
        let (address, peer) = target(&request["address"])?;
        let amount = request["amount"].as_u64().ok_or("no amount")?;
        let streams = request["streams"].as_u64().unwrap_or(1);
        let node = &self.nodes[0];
        if work == "dial" {
            return dial(node, &address, peer, amount).await;
        }
        node.connect(&address, peer).await?;
        let control = node.control.clone();
        let up = vec![SINK; streams as usize];
        match work {
            "upload" => bulk(control, peer, up, amount).await,
            "download" => bulk(control, peer, vec![SOURCE; streams as usize], amount).await,
            "both" => bulk(control, peer, vec![SINK, SOURCE], amount).await,
            "echo" => echo(control, peer, amount).await,
            "streams" => open_many(control, peer, amount, streams).await,
            _ => Err(format!("unknown work {work}").into()),
        }
    }

    async fn hold(&mut self, addresses: &Value) -> Result<Value, Failure> {
        let began = Instant::now();
        for (number, node) in self.nodes.iter().enumerate() {
            for text in addresses.as_array().ok_or("no addresses")? {
                let (address, peer) = target(text)?;
                node.connect(&address, peer).await?;
                self.held.push((number, peer));
            }
        }
        Ok(seconds(began.elapsed()))
    }

    async fn release(&mut self) -> Result<Value, Failure> {
        let began = Instant::now();
        for (number, peer) in self.held.drain(..) {
            self.nodes[number].disconnect(peer).await?;
        }
        Ok(seconds(began.elapsed()))
    }
}

fn seconds(spent: Duration) -> Value {
    json!({"seconds": spent.as_secs_f64()})
}

fn with_times(times: &[f64]) -> Value {
    json!({"seconds": times.iter().sum::<f64>(), "times": times})
}

fn target(text: &Value) -> Result<(Multiaddr, PeerId), Failure> {
    let address: Multiaddr = text.as_str().ok_or("no address")?.parse()?;
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Ok((address, peer)),
        _ => Err("the address must end in a peer id".into()),
    }
}

async fn dial(
    node: &Node,
    address: &Multiaddr,
    peer: PeerId,
    amount: u64,
) -> Result<Value, Failure> {
    let mut times = Vec::new();
    for _ in 0..amount {
        node.disconnect(peer).await?;
        let began = Instant::now();
        node.connect(address, peer).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(with_times(&times))
}

async fn bulk(
    mut control: Control,
    peer: PeerId,
    protocols: Vec<StreamProtocol>,
    amount: u64,
) -> Result<Value, Failure> {
    let share = amount / protocols.len() as u64;
    let mut opened = Vec::new();
    for protocol in protocols {
        let stream = control.open_stream(peer, protocol.clone()).await?;
        opened.push((protocol, stream));
    }
    let began = Instant::now();
    let moving = opened.into_iter().map(|(protocol, stream)| {
        tokio::spawn(async move {
            let arrived = if protocol == SINK {
                send_up(stream, share).await?
            } else {
                take_down(stream, share).await?
            };
            Ok::<_, io::Error>(arrived)
        })
    });
    for arrived in try_join_all(moving).await? {
        let arrived = arrived?;
        if arrived != share {
            return Err(format!("{arrived} of {share} bytes arrived").into());
        }
    }
    Ok(seconds(began.elapsed()))
}

async fn send_up(mut stream: Stream, count: u64) -> io::Result<u64> {
    send_zeros(&mut stream, count).await?;
    stream.close().await?;
    read_number(&mut stream).await
}

async fn take_down(mut stream: Stream, count: u64) -> io::Result<u64> {
    stream.write_all(&count.to_be_bytes()).await?;
    stream.flush().await?;
    drain(&mut stream).await
}

async fn echo(mut control: Control, peer: PeerId, amount: u64) -> Result<Value, Failure> {
    let mut stream = control.open_stream(peer, ECHO).await?;
    let mut times = Vec::new();
    for _ in 0..amount {
        let began = Instant::now();
        round_trip(&mut stream).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    stream.close().await?;
    Ok(with_times(&times))
}

async fn round_trip(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(&[0; SMALL]).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; SMALL]).await
}

async fn open_many(
    control: Control,
    peer: PeerId,
    amount: u64,
    at_once: u64,
) -> Result<Value, Failure> {
    let taken = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let turns = (0..at_once).map(|_| {
        let (mut control, taken) = (control.clone(), taken.clone());
        tokio::spawn(async move {
            while taken.fetch_add(1, Ordering::Relaxed) < amount {
                let mut stream = control.open_stream(peer, ECHO).await?;
                round_trip(&mut stream).await?;
                stream.close().await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for turn in try_join_all(turns).await? {
        turn?;
    }
    Ok(seconds(began.elapsed()))
}
