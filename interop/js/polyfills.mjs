// What js-libp2p expects of the platform and Node 20 lacks. Import this before anything else.

Promise.withResolvers ??= function withResolvers() {
  let resolve;
  let reject;
  const promise = new this((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
};
