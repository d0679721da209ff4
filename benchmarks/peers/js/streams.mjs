// What both ends do with streams.

import { until } from '../../../interop/js/waiting.mjs';

const BLOCK = new Uint8Array(256 * 1024);
export const SMALL = BLOCK.subarray(0, 32);

/** Send so many bytes, at the pace at which they leave. */
export async function sendZeros(stream, count) {
  for (let left = count; left > 0; left -= BLOCK.length) {
    if (!stream.send(BLOCK.subarray(0, Math.min(left, BLOCK.length)))) await drained(stream);
  }
}

// stream.onDrain() keeps its first promise, so from the second wait on it would not wait.
function drained(stream) {
  return until(stream, 'drain', () => (stream.writableNeedsDrain ? undefined : true), { unless: 'close' });
}

/** Send back what comes, and pause while the other side does not take it. */
export async function echo(stream) {
  stream.addEventListener('message', ({ data }) => {
    if (stream.send(data)) return;
    // Not at once: resume() opens the window last, so a pause during its delivery would be undone.
    queueMicrotask(() => {
      if (stream.writableNeedsDrain && stream.readStatus === 'readable') stream.pause();
    });
  });
  stream.addEventListener('drain', () => {
    if (stream.readStatus === 'paused') stream.resume();
  });
  await until(stream, 'end', () => stream.readableEnded || undefined, { unless: 'close' });
  await stream.close();
}

/** Takes what comes on a stream, and tells when so much, or all, is there. */
export class Taking {
  bytes = Buffer.alloc(0); // the first eight, which mean something
  count = 0;

  constructor(stream) {
    this.stream = stream;
    this.wanted = Infinity;
    stream.addEventListener('message', ({ data }) => {
      if (this.bytes.length < 8) this.bytes = Buffer.concat([this.bytes, data.subarray()]).subarray(0, 8);
      this.count += data.byteLength;
      if (this.count >= this.wanted) this.arrived();
    });
    stream.addEventListener('close', ({ error }) => this.cut?.(error ?? new Error('the stream was closed')));
  }

  /** Wait until so many bytes have come since the stream was opened. */
  upTo(count) {
    if (this.count >= count) return undefined;
    return new Promise((resolve, reject) => {
      this.wanted = count;
      this.cut = reject;
      this.arrived = () => {
        this.wanted = Infinity;
        resolve();
      };
    });
  }

  /** Wait until the other side has ended; a reset is no end. */
  async all() {
    await until(this.stream, 'end', () => this.stream.readableEnded || undefined, { unless: 'close' });
    if (this.stream.status === 'reset' || this.stream.status === 'aborted') throw new Error('the stream was reset');
  }

  /** The first eight bytes, as the number they are. */
  async number() {
    await this.upTo(8);
    return Number(this.bytes.readBigUInt64BE());
  }
}

export function encoded(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return bytes;
}
