// The dialing role of an AutoNAT client: connect to the servers, wait until enough is known of our
// own addresses, report. js-libp2p tells nobody what its client finds out, so its books are read.

import { getNetConfig, isLoopback, isPrivate } from '@libp2p/utils';

import { describe } from './dialer.mjs';
import { startNode } from './node.mjs';
import { deadline } from './waiting.mjs';

const PROTOCOLS = { 'v1-client': '/libp2p/autonat/1.0.0', 'v2-client': '/libp2p/autonat/2/dial-request' };
const LOOK_MS = 100;

/** Run the client. Returns the report; its `error` is null when everything was learnt. */
export async function learn(settings) {
  const report = { peer_id: null, learnt: [], error: null };
  const limit = deadline(settings.timeoutSeconds, `not done within ${settings.timeoutSeconds} s`);
  let node;
  try {
    node = await startNode(settings);
    report.peer_id = node.peerId.toString();
    node.addEventListener('peer:identify', ({ detail }) => mapOutside(node.services.addresses.manager, detail.observedAddr));
    for (const target of settings.targets) await node.dial(target, { signal: limit.signal });
    while (report.learnt.length < settings.verdicts) {
      limit.signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      report.learnt = lessons(node, settings.autoNAT);
    }
  } catch (error) {
    console.error(error);
    report.error = describe(error);
  } finally {
    limit.clear();
    await node?.stop();
  }
  return report;
}

// Behind a NAT js-libp2p has no TCP address that it could have tested: it can't dial from the port
// that it listens on, and passes over where its peers see it. Hence what its UPnP client would do.
function mapOutside(manager, observed) {
  const own = manager.getAddressesWithMetadata().filter(({ multiaddr }) => !isLoopback(multiaddr));
  if (observed == null || isPrivate(observed) || own.some(({ multiaddr }) => !isPrivate(multiaddr))) return;
  for (const { multiaddr } of own) {
    const { host, port } = getNetConfig(multiaddr);
    manager.addPublicAddressMapping(host, port, getNetConfig(observed).host);
  }
}

// One success is enough for js-libp2p. Failures it only counts: it wants eight of them, from as many
// networks of 2^24 addresses, before it concludes anything.
function lessons(node, autoNAT) {
  const protocol = PROTOCOLS[autoNAT];
  const reached = node.services.addresses.manager
    .getAddressesWithMetadata()
    .filter(({ multiaddr, verified }) => verified && !isPrivate(multiaddr))
    .map(({ multiaddr }) => ({ address: String(multiaddr), reachability: 'public', protocol }));
  const client = node.services.autoNAT.client ?? node.services.autoNAT;
  const missed = [...client.dialResults.values()]
    .filter(({ success, failure }) => failure > success)
    .map(({ multiaddr }) => ({ address: String(multiaddr), reachability: 'private', protocol }));
  return [...reached, ...missed];
}
