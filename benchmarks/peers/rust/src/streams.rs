//! What both ends do with streams.

use std::io;

use libp2p::{
    Stream, StreamProtocol,
    futures::{AsyncReadExt, AsyncWriteExt},
};

pub const ECHO: StreamProtocol = StreamProtocol::new("/p2pnet/echo/1.0.0");
pub const SINK: StreamProtocol = StreamProtocol::new("/p2pnet/bench/sink/1.0.0");
pub const SOURCE: StreamProtocol = StreamProtocol::new("/p2pnet/bench/source/1.0.0");
pub const SMALL: usize = 32;
const BLOCK: usize = 256 * 1024;
const CHUNK: usize = 64 * 1024;

/// Serve a stream to its end.
pub async fn answer(stream: Stream, protocol: StreamProtocol) {
    let done = match &protocol {
        it if *it == ECHO => echo(stream).await,
        it if *it == SINK => sink(stream).await,
        _ => source(stream).await,
    };
    if let Err(error) = done {
        eprintln!("{protocol} broke off: {error}");
    }
}

async fn echo(mut stream: Stream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return stream.close().await,
            count => stream.write_all(&chunk[..count]).await?,
        }
        stream.flush().await?;
    }
}

async fn sink(mut stream: Stream) -> io::Result<()> {
    let total = drain(&mut stream).await?;
    stream.write_all(&total.to_be_bytes()).await?;
    stream.close().await
}

async fn source(mut stream: Stream) -> io::Result<()> {
    let wanted = read_number(&mut stream).await?;
    send_zeros(&mut stream, wanted).await?;
    stream.close().await
}

pub async fn read_number(stream: &mut Stream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    Ok(u64::from_be_bytes(bytes))
}

pub async fn send_zeros(stream: &mut Stream, count: u64) -> io::Result<()> {
    let block = vec![0; BLOCK];
    let mut left = count;
    while left > 0 {
        let size = BLOCK.min(usize::try_from(left).unwrap_or(BLOCK));
        stream.write_all(&block[..size]).await?;
        left -= size as u64;
    }
    stream.flush().await
}

/// Read to the end, and return how many bytes that was.
pub async fn drain(stream: &mut Stream) -> io::Result<u64> {
    let (mut chunk, mut total) = (vec![0; BLOCK], 0);
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}
