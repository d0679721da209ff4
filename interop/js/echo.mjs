// The echo protocol: the server sends every byte back and half-closes after the sender did.

import { createHash, randomBytes } from 'node:crypto';

import { until } from './waiting.mjs';

export const ECHO_PROTOCOL = '/p2pnet/echo/1.0.0';

const CHUNK = 64 * 1024;

/** Serve one echo stream; stop reading while the other side does not take what we send. */
export function serveEcho(stream) {
  stream.addEventListener('message', ({ data }) => {
    if (stream.send(data)) return;
    // Not at once: resume() delivers the buffered bytes first and opens the window last, so a
    // pause made during that delivery would be undone by it.
    queueMicrotask(() => {
      if (stream.writableNeedsDrain && stream.readStatus === 'readable') stream.pause();
    });
  });
  stream.addEventListener('drain', () => {
    if (stream.readStatus === 'paused') stream.resume();
  });
  // 'end' comes after the last 'message'; 'remoteCloseWrite' overtakes bytes held back by a pause.
  stream.addEventListener('end', () => {
    stream.close().catch((error) => stream.abort(error));
  });
}

/** Send `size` random bytes while reading them back. Returns whether both SHA-256 are the same. */
export async function runEcho(connection, size, signal) {
  const stream = await connection.newStream(ECHO_PROTOCOL, { signal, runOnLimitedConnection: true });
  const sent = createHash('sha256');
  const received = createHash('sha256');
  let count = 0;
  stream.addEventListener('message', ({ data }) => {
    received.update(data.subarray());
    count += data.byteLength;
  });

  const whole = until(stream, 'end', () => ended(stream, count), { signal, unless: 'close' });
  try {
    await Promise.all([sendAll(stream, size, sent, signal), whole]);
  } catch (error) {
    stream.abort(error);
    throw new Error(`echo stopped after ${count} of ${size} bytes: ${error.message}`, { cause: error });
  }
  return count === size && sent.digest('hex') === received.digest('hex');
}

/** Probe for the end of what the remote sends: `count` if it came, and an error for a reset. */
export function ended(stream, count) {
  if (!stream.readableEnded) return undefined;
  // A reset ends the readable side too, before its 'close' event tells why.
  if (stream.status === 'reset' || stream.status === 'aborted') {
    throw new Error(`stream was ${stream.status}`);
  }
  return count;
}

async function sendAll(stream, size, hash, signal) {
  for (let left = size; left > 0; left -= CHUNK) {
    const chunk = randomBytes(Math.min(CHUNK, left));
    hash.update(chunk);
    if (!stream.send(chunk)) await drained(stream, signal);
  }
  await stream.close({ signal });
}

// stream.onDrain() keeps its first promise, so from the second wait on it would not wait.
export function drained(stream, signal) {
  return until(stream, 'drain', () => (stream.writableNeedsDrain ? undefined : true), { signal, unless: 'close' });
}
