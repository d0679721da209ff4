// A js-libp2p node as it comes, but with one security protocol and no limits in the way, and what
// the other end of each work does.

import { quic } from '@chainsafe/libp2p-quic';
import { identify } from '@libp2p/identify';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { webSockets } from '@libp2p/websockets';
import { yamux } from '@libp2p/yamux';
import { createLibp2p } from 'libp2p';

import { Taking, echo, encoded, sendZeros } from './streams.mjs';

export const ECHO = '/p2pnet/echo/1.0.0';
export const SINK = '/p2pnet/bench/sink/1.0.0';
export const SOURCE = '/p2pnet/bench/source/1.0.0';
export const MANY = 1000;

export async function startNode({ serving, listen, security }) {
  const node = await createLibp2p({
    addresses: { listen: serving ? [listen] : [] },
    transports: [tcp(), webSockets(), quic()],
    connectionEncrypters: [security === 'tls' ? tls() : noise()],
    streamMuxers: [yamux()],
    // By default the sixth connection a second from one address is refused.
    connectionManager: {
      inboundConnectionThreshold: MANY,
      maxIncomingPendingConnections: MANY,
      maxConnections: MANY,
    },
    services: { identify: identify() },
  });
  await handle(node, ECHO, echo);
  await handle(node, SINK, serveSink);
  await handle(node, SOURCE, serveSource);
  return node;
}

function handle(node, protocol, serve) {
  const served = (stream) => {
    serve(stream).catch((error) => {
      console.error(error);
      stream.abort(error);
    });
  };
  return node.handle(protocol, served, { maxInboundStreams: MANY, maxOutboundStreams: MANY });
}

async function serveSink(stream) {
  const taking = new Taking(stream);
  await taking.all();
  stream.send(encoded(taking.count));
  await stream.close();
}

async function serveSource(stream) {
  await sendZeros(stream, await new Taking(stream).number());
  await stream.close();
}
