// What a driver is asked to do.

import { multiaddr } from '@multiformats/multiaddr';

import { ECHO, MANY, SINK, SOURCE } from './node.mjs';
import { SMALL, Taking, encoded, sendZeros } from './streams.mjs';

const WAYS = { upload: [SINK], download: [SOURCE], both: [SINK, SOURCE] };
const now = () => performance.now() / 1000;

export class Driver {
  constructor(nodes) {
    this.nodes = nodes;
    this.held = [];
    this.connection = null;
  }

  async do(request) {
    const { work, address, addresses, amount } = request;
    if (work === 'hold') return this.hold(addresses);
    if (work === 'release') return this.release();
    if (work === 'collect') {
      globalThis.gc();
      return { seconds: 0 };
    }
    if (work === 'dial') {
      await this.connection?.close();
      return this.dial(address, amount);
    }
    if (this.connection?.status !== 'open') this.connection = await connect(this.nodes[0], address);
    if (work === 'echo') return echo(this.connection, amount);
    if (work === 'streams') return streams(this.connection, amount, request.streams);
    return bulk(this.connection, WAYS[work], request);
  }

  async dial(address, amount) {
    const times = [];
    for (let i = 0; i < amount; i += 1) {
      const began = now();
      const connection = await connect(this.nodes[0], address);
      times.push(now() - began);
      await connection.close();
    }
    return { seconds: times.reduce((a, b) => a + b, 0), times };
  }

  async hold(addresses) {
    const began = now();
    for (const node of this.nodes) {
      for (const address of addresses) this.held.push(await connect(node, address));
    }
    return { seconds: now() - began };
  }

  async release() {
    const began = now();
    for (const connection of this.held.splice(0)) await connection.close();
    return { seconds: now() - began };
  }
}

/** Connect, and wait until identify has run. */
async function connect(node, address) {
  const target = multiaddr(address);
  const name = address.split('/p2p/').at(-1);
  const { promise: identified, resolve } = Promise.withResolvers();
  const listen = ({ detail }) => detail.peerId.toString() === name && resolve();
  node.addEventListener('peer:identify', listen);
  try {
    const connection = await node.dial(target);
    await identified;
    return connection;
  } finally {
    node.removeEventListener('peer:identify', listen);
  }
}

function open(connection, protocol) {
  return connection.newStream(protocol, { maxOutboundStreams: MANY });
}

async function bulk(connection, ways, { amount, streams: count = 1 }) {
  const protocols = Array(count).fill(ways).flat();
  const share = Math.floor(amount / protocols.length);
  const opened = [];
  for (const protocol of protocols) opened.push(await open(connection, protocol));
  const began = now();
  await Promise.all(opened.map((stream, i) => (protocols[i] === SINK ? sendUp : takeDown)(stream, share)));
  const seconds = now() - began;
  await Promise.all(opened.map((stream) => stream.close()));
  return { seconds };
}

async function sendUp(stream, count) {
  const taking = new Taking(stream);
  await sendZeros(stream, count);
  await stream.close();
  check(await taking.number(), count);
}

async function takeDown(stream, count) {
  const taking = new Taking(stream);
  stream.send(encoded(count));
  await taking.all();
  check(taking.count, count);
}

function check(arrived, count) {
  if (arrived !== count) throw new Error(`${arrived} of ${count} bytes arrived`);
}

async function echo(connection, amount) {
  const stream = await open(connection, ECHO);
  const taking = new Taking(stream);
  const times = [];
  for (let i = 1; i <= amount; i += 1) {
    const began = now();
    stream.send(SMALL);
    await taking.upTo(i * SMALL.length);
    times.push(now() - began);
  }
  await stream.close();
  return { seconds: times.reduce((a, b) => a + b, 0), times };
}

async function streams(connection, amount, atOnce) {
  let left = amount;
  const takeTurns = async () => {
    while (left > 0) {
      left -= 1;
      const stream = await open(connection, ECHO);
      const taking = new Taking(stream);
      stream.send(SMALL);
      await taking.upTo(SMALL.length);
      await stream.close();
    }
  };
  const began = now();
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
  return { seconds: now() - began };
}
