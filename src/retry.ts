import { setTimeout as sleep } from 'node:timers/promises'

const PAUSE_MS = 400

/** Why something failed that may succeed if it is tried again. */
export class TransientError extends Error {}

/**
 * Runs `attempt` until it succeeds, throws anything but a TransientError, or throws one after `waitMs`, in ms.
 * @throws AbortError when `signal` is aborted between two attempts
 */
export async function retry<T>(waitMs: number, attempt: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  const until = performance.now() + waitMs
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof TransientError) || performance.now() > until) throw error
      // Pods that start together do not try together.
      await sleep(PAUSE_MS * (0.75 + Math.random() / 2), undefined, { signal })
    }
  }
}
