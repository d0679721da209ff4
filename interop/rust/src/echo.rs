//! The echo protocol: the server sends every byte back and half-closes after the sender did.

use std::{io, process, time::SystemTime};

use libp2p::{
    PeerId, Stream, StreamProtocol,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, future},
};
use libp2p_stream::{Control, IncomingStreams};
use sha2::{Digest, Sha256};

use crate::settings::Failure;

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnet/echo/1.0.0");
const CHUNK: usize = 64 * 1024;

pub async fn serve(mut incoming: IncomingStreams) {
    while let Some((peer, stream)) = incoming.next().await {
        tokio::spawn(async move {
            if let Err(error) = answer(stream).await {
                eprintln!("echo to {peer} broke off: {error}");
            }
        });
    }
}

async fn answer(mut stream: Stream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return stream.close().await,
            count => stream.write_all(&chunk[..count]).await?,
        }
        stream.flush().await?;
    }
}

/// Send so many bytes while reading them back. Returns whether both SHA-256 are the same.
pub async fn run(mut control: Control, peer: PeerId, size: u64) -> Result<bool, Failure> {
    let stream = control.open_stream(peer, PROTOCOL).await?;
    let (reader, writer) = stream.split();
    let (sent, received) = future::try_join(send(writer, size), receive(reader)).await?;
    Ok(sent == received)
}

async fn send(mut writer: impl AsyncWrite + Unpin, size: u64) -> io::Result<(u64, Vec<u8>)> {
    let (block, mut digest, mut left) = (block(), Sha256::new(), size);
    while left > 0 {
        let chunk = &block[..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        digest.update(chunk);
        writer.write_all(chunk).await?;
        left -= chunk.len() as u64;
    }
    writer.close().await?;
    Ok((size, digest.finalize().to_vec()))
}

async fn receive(mut reader: impl AsyncRead + Unpin) -> io::Result<(u64, Vec<u8>)> {
    let (mut chunk, mut digest, mut size) = (vec![0; CHUNK], Sha256::new(), 0);
    loop {
        match reader.read(&mut chunk).await? {
            0 => return Ok((size, digest.finalize().to_vec())),
            count => {
                digest.update(&chunk[..count]);
                size += count as u64;
            }
        }
    }
}

/// Bytes that are others in each run.
fn block() -> Vec<u8> {
    let seed = format!("{} {:?}", process::id(), SystemTime::now());
    (0..CHUNK / 32)
        .flat_map(|i| Sha256::digest(format!("{seed} {i}")))
        .collect()
}
