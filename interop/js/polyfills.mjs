// What js-libp2p expects of the platform and Node 20 lacks. Import this before anything else.

import { WebSocket } from 'ws';

Promise.withResolvers ??= function withResolvers() {
  let resolve;
  let reject;
  const promise = new this((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
};

// The dialler of js-libp2p listens for messages only a turn after it was told that the socket is open,
// and what had come along with the answer to the handshake would be lost.
class PatientWebSocket extends WebSocket {
  constructor(...args) {
    super(...args);
    this.once('open', () => {
      this.pause();
      setImmediate(() => this.resume());
    });
  }
}
globalThis.WebSocket ??= PatientWebSocket;
