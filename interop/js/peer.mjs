// A js-libp2p peer that speaks the contract of the interoperability tests: settings come in
// environment variables, one JSON line goes out on stdout, everything else to stderr.

import './polyfills.mjs';

const { learn } = await import('./autonat.mjs');
const { dial } = await import('./dialer.mjs');
const { startNode } = await import('./node.mjs');
const { readSettings } = await import('./settings.mjs');

function print(report) {
  return new Promise((resolve) => process.stdout.write(`${JSON.stringify(report)}\n`, resolve));
}

function ending() {
  return new Promise((resolve) => {
    process.once('SIGTERM', resolve);
    process.stdin.once('end', resolve).once('error', resolve).resume();
  });
}

function readyLine(node) {
  const all = node.getMultiaddrs().map(String);
  const relayed = (address) => address.includes('/p2p-circuit');
  return {
    peer_id: node.peerId.toString(),
    addresses: all.filter((address) => !relayed(address)),
    circuit_addresses: all.filter(relayed),
  };
}

async function serve(settings) {
  const ended = ending();
  const node = await startNode(settings);
  const ready = readyLine(node);
  if (settings.relay !== null && ready.circuit_addresses.length === 0) {
    throw new Error(`no circuit address after reserving on ${settings.relay}`);
  }
  await print(ready);
  await ended;
  await node.stop();
  return 0;
}

async function runDial(settings) {
  const report = await (settings.autoNAT === null ? dial(settings) : learn(settings));
  await print(report);
  return report.error === null ? 0 : 1;
}

async function main() {
  const settings = readSettings(process.env);
  return settings.role === 'dial' ? runDial(settings) : serve(settings);
}

process.exit(
  await main().catch((error) => {
    console.error(error);
    return 1;
  }),
);
