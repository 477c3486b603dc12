/**
 * Runs what has the same id one after the other: a row that another transaction has locked then occupies one connection,
 * however many changes of it wait.
 */
export function createExclusive() {
  const last = new Map<number, Promise<unknown>>()
  return function runExclusive<T>(id: number, work: () => Promise<T>): Promise<T> {
    const result = last.get(id)?.then(work, work) ?? work()
    last.set(id, result)
    return result.finally(() => last.get(id) === result && last.delete(id))
  }
}
