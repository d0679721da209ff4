// The dialing role: connect, identify, perhaps wait for a direct connection, ping, echo, report.

import { randomBytes } from 'node:crypto';

import { byteStream } from '@libp2p/utils';

import { runEcho } from './echo.mjs';
import { startNode } from './node.mjs';
import { runPerf } from './perf.mjs';
import { deadline, until } from './waiting.mjs';

const PING_PROTOCOL = '/ipfs/ping/1.0.0';
const PING_BYTES = 32;
const PINGS = 3;

// A stream counts until the remote has closed its side, too, for which rust-libp2p takes its time.
const PING_STREAMS = 10;

/** Run the whole dial. Returns the report; its `error` is null when everything worked. */
export async function dial(settings) {
  const report = {
    peer_id: null,
    remote_peer_id: null,
    agent: null,
    protocols: [],
    observed: null,
    listen_addrs: [],
    handshake_ms: null,
    ping_rtt_ms: null,
    echo_bytes: settings.echoBytes,
    echo_ok: false,
    perf_uploaded: 0,
    perf_downloaded: 0,
    relayed: null,
    error: null,
  };
  const limit = deadline(settings.timeoutSeconds, `not done within ${settings.timeoutSeconds} s`);
  let node;
  try {
    node = await startNode(settings);
    report.peer_id = node.peerId.toString();
    await fillReport(report, node, settings, limit.signal);
  } catch (error) {
    console.error(error);
    report.error = describe(error);
  } finally {
    limit.clear();
    await node?.stop();
  }
  return report;
}

async function fillReport(report, node, settings, signal) {
  // By peer, not by connection: a hole punch may close the relayed connection before its identify ends.
  const identified = new Map();
  node.addEventListener('peer:identify', ({ detail }) => identified.set(detail.peerId.toString(), detail));

  const begin = performance.now();
  const first = await node.dial(settings.target, { signal });
  report.handshake_ms = performance.now() - begin;
  report.remote_peer_id = first.remotePeer.toString();

  const remote = await until(node, 'peer:identify', () => identified.get(report.remote_peer_id), { signal });
  report.agent = remote.agentVersion ?? null;
  report.protocols = remote.protocols;
  report.observed = remote.observedAddr?.toString() ?? null;
  report.listen_addrs = remote.listenAddrs.map(String);

  const connection = settings.directSeconds > 0 ? await directConnection(node, first, settings.directSeconds, signal) : first;
  report.relayed = !connection.direct;
  report.ping_rtt_ms = await bestPing(connection, signal);
  const { upload, download } = settings.perf;
  if (upload > 0 || download > 0) {
    report.perf_downloaded = await runPerf(connection, settings.perf, signal);
    report.perf_uploaded = upload;
  }
  if (settings.echoBytes > 0) {
    report.echo_ok = await runEcho(connection, settings.echoBytes, signal);
    if (!report.echo_ok) throw new Error('the echo differs from what was sent');
  } else {
    report.echo_ok = true;
  }
}

async function directConnection(node, connection, seconds, signal) {
  const limit = deadline(seconds, `no direct connection within ${seconds} s`);
  const usable = (candidate) => candidate.direct && candidate.status === 'open';
  const probe = () => node.getConnections(connection.remotePeer).find(usable);
  try {
    return await until(node, 'connection:open', probe, { signal: AbortSignal.any([signal, limit.signal]) });
  } finally {
    limit.clear();
  }
}

// The ping service picks a connection itself, and never a limited one, so it can't be used here.
async function bestPing(connection, signal) {
  let best = Infinity;
  for (let i = 0; i < PINGS; i += 1) {
    best = Math.min(best, await pingOnce(connection, signal));
  }
  return best;
}

// Half-closes before the answer is read, as the ping service of js-libp2p does.
async function pingOnce(connection, signal) {
  const stream = await connection.newStream(PING_PROTOCOL, {
    signal,
    runOnLimitedConnection: true,
    maxOutboundStreams: PING_STREAMS,
  });
  try {
    const bytes = byteStream(stream);
    const payload = randomBytes(PING_BYTES);
    const begin = performance.now();
    await bytes.write(payload, { signal });
    await stream.close({ signal });
    const answer = await bytes.read({ bytes: PING_BYTES, signal });
    const elapsed = performance.now() - begin;
    if (!payload.equals(answer.subarray())) throw new Error('the ping answer differs from what was sent');
    return elapsed;
  } catch (error) {
    stream.abort(error);
    throw error;
  }
}

export function describe(error) {
  const inner = error.errors?.map(describe) ?? [];
  return [`${error.name}: ${error.message}`, ...inner].join('; ');
}
