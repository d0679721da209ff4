// Waiting for events of an EventTarget by what they make true.

/**
 * Resolve with the first value of `probe` that is not undefined. The probe runs at once and after
 * each `type` event; a throwing probe rejects. Rejects with the error of an `unless` event, or
 * with the reason of `signal`.
 */
export function until(target, type, probe, { signal, unless } = {}) {
  return new Promise((resolve, reject) => {
    const settle = (how, value) => {
      target.removeEventListener(type, check);
      if (unless !== undefined) target.removeEventListener(unless, onUnless);
      signal?.removeEventListener('abort', onAbort);
      how(value);
    };
    const check = () => {
      try {
        const value = probe();
        if (value !== undefined) settle(resolve, value);
      } catch (error) {
        settle(reject, error);
      }
    };
    const onUnless = (event) => settle(reject, event.error ?? new Error(`${unless} came before ${type}`));
    const onAbort = () => settle(reject, signal.reason);

    target.addEventListener(type, check);
    if (unless !== undefined) target.addEventListener(unless, onUnless);
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted) onAbort();
    else check();
  });
}

/**
 * Make an abort signal that fires after some seconds. Unlike `AbortSignal.timeout` it keeps the
 * program alive until then, so a lost connection ends in an error and not in a silent exit.
 */
export function deadline(seconds, message) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error(message)), seconds * 1000);
  return { signal: controller.signal, clear: () => clearTimeout(timer) };
}
