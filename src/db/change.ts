import type { Refusal, Versions } from '../resource.ts'
import { type Pool, runner } from './pool.ts'
import { arrayText, type Run } from './statement.ts'

/**
 * Makes a function that runs a statement which changes or deletes one row. It gives what the statement returns, or says why no
 * row was met. The statement gets the versions as `isAtVersion` takes them.
 *
 * Changes of the same row run one after the other: a row that another transaction has locked then occupies one connection,
 * however many changes of it wait.
 * @param get finds the row, whatever its version
 */
export function createChange(db: Pool, get: (id: number, until: number) => Promise<object | undefined>) {
  const last = new Map<number, Promise<unknown>>()

  return async function change<Row>(
    id: number,
    versions: Versions,
    until: number,
    statement: (run: Run, versions: string | null) => Promise<Row[]>,
  ): Promise<Row | Refusal> {
    const text = versions ? arrayText(versions) : null
    const work = () => statement(runner(db, 'write', until), text)
    const result = last.get(id)?.then(work, work) ?? work()
    last.set(id, result)
    const [row] = await result.finally(() => last.get(id) === result && last.delete(id))
    return row ?? { outcome: versions && (await get(id, until)) ? 'stale' : 'missing' }
  }
}
