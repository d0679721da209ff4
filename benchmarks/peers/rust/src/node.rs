//! A rust-libp2p node: a task that runs its swarm, and a handle to ask it for connections.

use std::{collections::HashMap, env, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    futures::{AsyncRead, AsyncWrite, StreamExt, future::Either},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use libp2p_stream::Control;
use tokio::sync::{mpsc, oneshot};

use crate::{Failure, serving::Serving};

pub const VERSION: &str = "0.57.1";
const IDLE_TIMEOUT: Duration = Duration::from_secs(86_400);

type Connections = Boxed<(PeerId, StreamMuxerBox)>;
type Done = oneshot::Sender<Result<(), String>>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    streams: libp2p_stream::Behaviour,
    serving: Serving,
}

enum Order {
    /// Connect, and wait until identify has told about the other end.
    Connect(Multiaddr, PeerId, Done),
    Disconnect(PeerId, Done),
}

pub struct Node {
    pub control: Control,
    orders: mpsc::Sender<Order>,
}

impl Node {
    /// Start a node; with the address that it listens at, if it serves.
    pub async fn start() -> Result<(Self, Option<Multiaddr>), Failure> {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let behaviour = Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(
                "/p2pnet/bench/1".into(),
                key.public(),
            )),
            streams: libp2p_stream::Behaviour::new(),
            serving: Serving,
        };
        let config =
            swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
        let mut swarm = Swarm::new(transport(&key)?, behaviour, id, config);
        let control = swarm.behaviour().streams.new_control();
        let mut address = None;
        if env::var("ROLE")? == "serve" {
            swarm.listen_on(env::var("LISTEN")?.parse()?)?;
            while address.is_none() {
                if let SwarmEvent::NewListenAddr { address: found, .. } =
                    swarm.select_next_some().await
                {
                    address = Some(found.with(Protocol::P2p(id)));
                }
            }
        }
        let (orders, taken) = mpsc::channel(1);
        tokio::spawn(run(swarm, taken));
        Ok((Self { control, orders }, address))
    }

    pub async fn connect(&self, address: &Multiaddr, peer: PeerId) -> Result<(), Failure> {
        self.order(|done| Order::Connect(address.clone(), peer, done))
            .await
    }

    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Failure> {
        self.order(|done| Order::Disconnect(peer, done)).await
    }

    async fn order(&self, make: impl FnOnce(Done) -> Order) -> Result<(), Failure> {
        let (done, answer) = oneshot::channel();
        self.orders.send(make(done)).await?;
        Ok(answer.await??)
    }
}

async fn run(mut swarm: Swarm<Behaviour>, mut orders: mpsc::Receiver<Order>) {
    let mut identified: HashMap<PeerId, Done> = HashMap::new();
    let mut closed: HashMap<PeerId, Done> = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Connect(address, peer, done)) => {
                    if swarm.is_connected(&peer) {
                        let _ = done.send(Ok(()));
                    } else if let Err(error) = swarm.dial(address) {
                        let _ = done.send(Err(error.to_string()));
                    } else {
                        identified.insert(peer, done);
                    }
                }
                Some(Order::Disconnect(peer, done)) => {
                    if swarm.disconnect_peer_id(peer).is_err() {
                        let _ = done.send(Ok(())); // There is no connection.
                    } else {
                        closed.insert(peer, done);
                    }
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    identify::Event::Received { peer_id, .. },
                )) => tell(identified.remove(&peer_id), Ok(())),
                SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                    tell(identified.remove(&peer), Err(error.to_string()));
                }
                SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                    tell(closed.remove(&peer_id), Ok(()));
                }
                _ => {}
            },
        }
    }
}

fn tell(waiting: Option<Done>, what: Result<(), String>) {
    if let Some(done) = waiting {
        let _ = done.send(what);
    }
}

fn transport(key: &Keypair) -> Result<Connections, Failure> {
    let socket = || tcp::tokio::Transport::new(tcp::Config::default());
    let websocket = libp2p_websocket::Config::new(socket());
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(id, it), _| (id, StreamMuxerBox::new(it)));
    Ok(quic
        .or_transport(upgraded(websocket, key)?)
        .or_transport(upgraded(socket(), key)?)
        .map(|either, _| match either {
            Either::Left(Either::Left(done) | Either::Right(done)) | Either::Right(done) => done,
        })
        .boxed())
}

fn upgraded<T>(transport: T, key: &Keypair) -> Result<Connections, Failure>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    T::Error: Send + Sync,
{
    let builder = transport.upgrade(Version::V1Lazy);
    let muxer = yamux::Config::default();
    Ok(if env::var("SECURITY").is_ok_and(|it| it == "tls") {
        builder
            .authenticate(tls::Config::new(key)?)
            .multiplex(muxer)
            .map(|(id, it), _| (id, StreamMuxerBox::new(it)))
            .boxed()
    } else {
        builder
            .authenticate(noise::Config::new(key)?)
            .multiplex(muxer)
            .map(|(id, it), _| (id, StreamMuxerBox::new(it)))
            .boxed()
    })
}
