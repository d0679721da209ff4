// Reads the environment variables of the peer contract into one checked, frozen object.

import { readFileSync } from 'node:fs';

import { multiaddr } from '@multiformats/multiaddr';

const ROLES = ['listen', 'dial', 'relay'];
const SECURITIES = ['noise', 'tls'];
const MUXERS = ['yamux'];
const AUTONAT = ['v1-client', 'v1-server', 'v2-client', 'v2-server'];

export function readSettings(environment) {
  const text = (name, fallback) => environment[name] || fallback;

  const choice = (name, allowed, fallback) => {
    const value = text(name, fallback);
    if (!allowed.includes(value)) {
      throw new Error(`${name} must be one of ${allowed.join(', ')}, not ${value}`);
    }
    return value;
  };

  const number = (name, fallback) => {
    const value = Number(text(name, fallback));
    if (!Number.isFinite(value) || value < 0) {
      throw new Error(`${name} must be a number of zero or more, not ${environment[name]}`);
    }
    return value;
  };

  const bytes = (name, fallback) => {
    const value = number(name, fallback);
    if (!Number.isSafeInteger(value)) throw new Error(`${name} must be a whole number`);
    return value;
  };

  const flag = (name, fallback) => choice(name, ['0', '1'], fallback) === '1';

  const address = (name) => {
    const value = text(name, null);
    return value === null ? null : multiaddr(value);
  };

  const role = choice('ROLE', ROLES, undefined);
  const seed = text('KEY_SEED', null);
  if (seed !== null && !/^[0-9a-f]{64}$/i.test(seed)) {
    throw new Error('KEY_SEED must be 64 hex digits');
  }
  const pskFile = text('PSK_FILE', null);
  const autoNAT = text('AUTONAT', null) && choice('AUTONAT', AUTONAT);
  const targets = text('TARGET', '').split(',').filter(Boolean).map((target) => multiaddr(target));
  if (role === 'dial' && targets.length === 0) {
    throw new Error('TARGET is required for ROLE=dial');
  }
  if (targets.length > 1 && autoNAT === null) {
    throw new Error('TARGET must be one multiaddr without AUTONAT');
  }

  return Object.freeze({
    role,
    seed: seed === null ? null : Buffer.from(seed, 'hex'),
    listen: text('LISTEN', role === 'dial' ? '' : '/ip4/127.0.0.1/tcp/0').split(',').filter(Boolean),
    targets,
    target: targets[0] ?? null,
    relay: role === 'listen' ? address('RELAY') : null,
    security: choice('SECURITY', SECURITIES, 'noise'),
    psk: pskFile === null ? null : readFileSync(pskFile),
    muxer: choice('MUXER', MUXERS, 'yamux'),
    echoBytes: bytes('ECHO_BYTES', '10485760'),
    perf: Object.freeze({ upload: bytes('PERF_UPLOAD', '0'), download: bytes('PERF_DOWNLOAD', '0') }),
    holePunch: flag('HOLE_PUNCH', '0'),
    directSeconds: number('DIRECT_SECONDS', '0'),
    timeoutSeconds: number('TIMEOUT_SECONDS', '60'),
    relayLimited: flag('RELAY_LIMITED', '1'),
    autoNAT,
    verdicts: number('VERDICTS', '1'),
  });
}
