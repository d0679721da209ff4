//! TCP, WebSocket and QUIC, and circuits through relays; all but QUIC with the security protocol
//! that the settings name, yamux, and the pre-shared key if there is one.

use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OptionalTransport, timeout::TransportTimeout},
        upgrade::Version,
    },
    futures::{AsyncRead, AsyncWrite, future::Either},
    noise,
    pnet::{PnetConfig, PnetError, PnetOutput, PreSharedKey},
    quic, relay, tcp, tls, yamux,
};

use crate::settings::{Failure, Security, Settings};

/// A dial into silence must end before the ten seconds do that a request of AutoNAT v2 may take, or
/// rust-libp2p forgets the request without an answer. Its default is ten seconds as well.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

pub type Connections = Boxed<(PeerId, StreamMuxerBox)>;

pub fn build(
    settings: &Settings,
    circuits: relay::client::Transport,
) -> Result<Connections, Failure> {
    let socket = || tcp::tokio::Transport::new(tcp::Config::default());
    let websocket = libp2p_websocket::Config::new(socket());
    let quic = match settings.psk {
        None => {
            let transport = quic::tokio::Transport::new(quic::Config::new(&settings.key));
            OptionalTransport::some(transport.map(|(id, it), _| (id, StreamMuxerBox::new(it))))
        }
        Some(_) => OptionalTransport::none(),
    };
    let all = upgraded(circuits, settings)?
        .or_transport(quic)
        .or_transport(upgraded(protected(websocket, settings.psk), settings)?)
        .or_transport(upgraded(protected(socket(), settings.psk), settings)?)
        .map(|either, _| match either {
            Either::Left(Either::Left(Either::Left(done) | Either::Right(done))) => done,
            Either::Left(Either::Right(done)) | Either::Right(done) => done,
        });
    Ok(TransportTimeout::new(all, CONNECTION_TIMEOUT).boxed())
}

/// Have what goes over a transport enciphered with the key of a private network.
fn protected<T>(
    transport: T,
    psk: Option<PreSharedKey>,
) -> Boxed<Either<T::Output, PnetOutput<T::Output>>>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    T::Error: Send + Sync,
{
    transport
        .and_then(move |socket, _| async move {
            Ok::<_, PnetError>(match psk {
                Some(key) => Either::Right(PnetConfig::new(key).handshake(socket).await?),
                None => Either::Left(socket),
            })
        })
        .boxed()
}

fn upgraded<T>(transport: T, settings: &Settings) -> Result<Connections, Failure>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    T::Error: Send + Sync,
{
    let builder = transport.upgrade(Version::V1Lazy);
    let muxer = yamux::Config::default();
    Ok(match settings.security {
        Security::Noise => builder
            .authenticate(noise::Config::new(&settings.key)?)
            .multiplex(muxer)
            .map(|(id, it), _| (id, StreamMuxerBox::new(it)))
            .boxed(),
        Security::Tls => builder
            .authenticate(tls::Config::new(&settings.key)?)
            .multiplex(muxer)
            .map(|(id, it), _| (id, StreamMuxerBox::new(it)))
            .boxed(),
    })
}
