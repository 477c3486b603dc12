import type { PgTable } from 'drizzle-orm/pg-core'
import { type Pool, runner } from './pool.ts'
import { builder, prepare } from './statement.ts'
import { DatabaseUnavailable } from './unavailable.ts'

/** Shorter than a probe waits. */
const ANSWER_TIMEOUT_MS = 500

/**
 * Makes a check that rejects with DatabaseUnavailable while requests cannot be served: neither the primary nor a replica
 * answers, or `tables` are not there with every column that this release needs. It does not fail because there are many
 * requests.
 * @param onWrong is called with PostgreSQL's reason when the tables are found wrong
 */
export function createReadiness(db: Pool, tables: readonly PgTable[], onWrong: (reason: Error) => void) {
  const questions = tables.map((table) => prepare(() => builder.select().from(table).limit(0)))
  let right: boolean | undefined

  return async function ready(): Promise<void> {
    try {
      // On the connections of streams: a queue of requests does not hold it up.
      const run = runner(db, 'stream', performance.now() + ANSWER_TIMEOUT_MS, 'primary-first')
      await Promise.all(questions.map((ask) => ask(run, {})))
      right = true
    } catch (error) {
      // The tables are locked, or the database has too much to do: that is told to each request.
      if (error instanceof DatabaseUnavailable && right && !db.failure()) return
      if (error instanceof DatabaseUnavailable || !(error instanceof Error)) throw error
      if (right !== false) onWrong(error)
      right = false
      throw new DatabaseUnavailable('its tables are not of this release', 'refused', error)
    }
  }
}
