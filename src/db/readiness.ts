import type { PgTable } from 'drizzle-orm/pg-core'
import { type Pool, runner } from './pool.ts'
import { builder, prepare } from './statement.ts'
import { DatabaseUnavailable } from './unavailable.ts'

const ANSWER_TIMEOUT_MS = 1500

/**
 * Makes a check that rejects with DatabaseUnavailable while requests cannot be served: nothing answers, or `tables` are
 * not there with every column that this release needs. It asks only where requests do not tell, and so never fails
 * because there are many of them.
 * @param onChange is called when the tables are found wrong, and when they are right again
 */
export function createReadiness(db: Pool, tables: readonly PgTable[], onChange: (problem?: Error) => void) {
  const questions = tables.map((table) => prepare(() => builder.select().from(table).limit(0)))
  let found = false
  let wrong = false

  return async function ready(): Promise<void> {
    const failure = db.failure()
    if (failure) throw failure
    if (found && !db.quiet()) return
    const until = performance.now() + ANSWER_TIMEOUT_MS
    try {
      const answers = questions.map((ask) => ask(runner(db, 'read', until), {}))
      await Promise.all(answers)
      found = true
      if (wrong) onChange()
      wrong = false
    } catch (error) {
      if (error instanceof DatabaseUnavailable || !(error instanceof Error)) throw error
      found = false
      if (!wrong) onChange(error)
      wrong = true
      throw new DatabaseUnavailable('its tables are not of this release', 'refused', error)
    }
  }
}
