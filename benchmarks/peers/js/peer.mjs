// js-libp2p as a benchmark peer. The contract is in ../README.md. This file reads the settings and
// speaks the lines.

import '../../../interop/js/polyfills.mjs';

import { createInterface } from 'node:readline';

const { version } = await import('libp2p/version');
const { startNode } = await import('./node.mjs');
const { Driver } = await import('./works.mjs');

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const serving = process.env.ROLE === 'serve';
const nodes = [];
for (let i = 0; i < Number(process.env.HOSTS ?? 1); i += 1) {
  nodes.push(await startNode({ serving, listen: process.env.LISTEN, security: process.env.SECURITY }));
}
print({ version, addresses: nodes.flatMap((node) => node.getMultiaddrs().map(String)) });

const driver = new Driver(nodes);
for await (const line of createInterface({ input: process.stdin })) {
  try {
    print(await driver.do(JSON.parse(line)));
  } catch (error) {
    console.error(error);
    print({ error: `${error.name}: ${error.message}` });
  }
}
process.exit(0);
