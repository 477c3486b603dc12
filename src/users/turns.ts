/**
 * Changes of the same user go one after the other: a row that someone has locked then holds one connection, however
 * many changes of it wait. `change` is given the time at which it began to wait, from which its deadline counts.
 */
export function createTurns() {
  const last = new Map<number, Promise<unknown>>()
  return {
    take<T>(id: number, change: (since: number) => Promise<T>): Promise<T> {
      const since = performance.now()
      const run = () => change(since)
      const turn = last.get(id)?.then(run, run) ?? run()
      last.set(id, turn)
      const leave = () => {
        if (last.get(id) === turn) last.delete(id)
      }
      turn.then(leave, leave)
      return turn
    },
  }
}
