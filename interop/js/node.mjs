// Puts a js-libp2p node together from the settings.

import { readFileSync } from 'node:fs';

import { quic } from '@chainsafe/libp2p-quic';
import { autoNAT } from '@libp2p/autonat';
import { autoNATv2 } from '@libp2p/autonat-v2';
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2';
import { generateKeyPair, generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { dcutr } from '@libp2p/dcutr';
import { identify } from '@libp2p/identify';
import { noise } from '@libp2p/noise';
import { ping } from '@libp2p/ping';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { webSockets } from '@libp2p/websockets';
import { yamux } from '@libp2p/yamux';
import { createLibp2p } from 'libp2p';

import { ECHO_PROTOCOL, serveEcho } from './echo.mjs';
import { PERF_PROTOCOL, servePerf } from './perf.mjs';

const { dependencies } = JSON.parse(readFileSync(new URL('./package.json', import.meta.url), 'utf8'));
const AGENT = `p2pnet-interop-js/1 js-libp2p/${dependencies.libp2p}`;
const SECURITY = { noise, tls };
const MANY = 1000;
const MIB = 1024 * 1024;

// While the echo is paused a whole receive window may still arrive. Yamux lets the window grow to
// 16 MiB but the default buffer holds 4, and a buffer that overflows resets the stream.
const PAUSED_STREAM_BYTES = 32 * MIB;

export async function startNode(settings) {
  const node = await createLibp2p({
    start: false,
    privateKey: await privateKey(settings.seed),
    nodeInfo: { userAgent: AGENT },
    addresses: { listen: listenAddresses(settings) },
    transports: transports(settings),
    ...(settings.psk !== null && { connectionProtector: preSharedKey({ psk: settings.psk }) }),
    connectionEncrypters: [SECURITY[settings.security]()],
    streamMuxers: [yamux({ streamOptions: { maxReadBufferLength: PAUSED_STREAM_BYTES } })],
    // By default the sixth connection a second from one address is refused.
    connectionManager: {
      inboundConnectionThreshold: MANY,
      maxIncomingPendingConnections: MANY,
      maxConnections: MANY,
    },
    services: services(settings),
  });
  const options = { maxInboundStreams: MANY, maxOutboundStreams: MANY, runOnLimitedConnection: true };
  await node.handle(ECHO_PROTOCOL, serveEcho, options);
  await node.handle(PERF_PROTOCOL, servePerf, options);
  if (settings.holePunch) offerObserved(node);
  await node.start();
  if (!settings.autoNAT?.endsWith('client')) node.services.addresses.announceListenAddresses();
  return node;
}

// Behind a NAT js-libp2p offers no address of its own: it wants AutoNAT to confirm one first, which
// can't be done with one that has to be punched. Over QUIC all its dials are from one socket, so
// where its relay sees that is where to punch. TCP dials are from another port each.
function offerObserved(node) {
  node.addEventListener('peer:identify', ({ detail: { observedAddr } }) => {
    if (/\/quic-v1(\/p2p\/\w+)?$/.test(observedAddr)) {
      node.services.addresses.manager.confirmObservedAddr(observedAddr, { type: 'observed' });
    }
  });
}

function privateKey(seed) {
  return seed === null ? generateKeyPair('Ed25519') : generateKeyPairFromSeed('Ed25519', seed);
}

// QUIC can't keep to a pre-shared key, and would take no notice of one.
function transports({ psk, timeoutSeconds }) {
  const circuits = circuitRelayTransport({ reservationCompletionTimeout: timeoutSeconds * 1000 });
  return [tcp(), webSockets(), circuits, ...(psk === null ? [quic()] : [])];
}

function listenAddresses(settings) {
  return settings.relay === null ? settings.listen : [...settings.listen, `${settings.relay}/p2p-circuit`];
}

function services(settings) {
  const chosen = { identify: identify(), ping: ping(), addresses };
  if (settings.autoNAT !== null) chosen.autoNAT = settings.autoNAT.startsWith('v1') ? autoNAT() : autoNATv2();
  if (settings.holePunch) chosen.dcutr = dcutr();
  if (settings.role === 'relay') {
    chosen.relay = circuitRelayServer({ reservations: { applyDefaultLimit: settings.relayLimited } });
  }
  return chosen;
}

// A public listen address is told to nobody until AutoNAT has confirmed it, and there is none but in
// tests of it: a relay on a public address would hand out reservations without addresses.
function addresses({ addressManager, transportManager }) {
  return {
    manager: addressManager,
    announceListenAddresses() {
      for (const address of transportManager.getAddrs()) {
        addressManager.confirmObservedAddr(address, { type: 'transport' });
      }
    },
  };
}
