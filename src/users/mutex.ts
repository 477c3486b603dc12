/**
 * Runs what has the same id one after the other: a row that another session has locked then occupies one connection,
 * however many changes of it wait. `work` is told when it began to wait, from which its deadline counts.
 */
export function createMutex() {
  const last = new Map<number, Promise<unknown>>()
  return function runExclusive<T>(id: number, work: (since: number) => Promise<T>): Promise<T> {
    const since = performance.now()
    const run = () => work(since)
    const result = last.get(id)?.then(run, run) ?? run()
    last.set(id, result)
    const leave = () => {
      if (last.get(id) === result) last.delete(id)
    }
    result.then(leave, leave)
    return result
  }
}
