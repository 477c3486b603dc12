import type { DatabaseUnavailable } from './unavailable.ts'

/** Called when the database, writes alone or a replica begin to fail, when the reason changes, and when they succeed again. */
export type OnChange = (of: 'database' | 'database writes' | 'replica', failure?: DatabaseUnavailable) => void

/** What the answers of all connections tell of the database. All times are those of performance.now(). */
export function createAvailability(onChange: OnChange = () => {}) {
  let failure: DatabaseUnavailable | undefined
  let writeFailure: DatabaseUnavailable | undefined
  let heardAt = performance.now()
  let writtenAt = Number.NEGATIVE_INFINITY

  return {
    /** Why nothing can be asked now. */
    failure: () => failure,
    /** When any connection was answered. */
    heardAt: () => heardAt,

    /** Notes an answer, which may be an error. */
    hear() {
      heardAt = performance.now()
      if (failure) onChange('database')
      failure = undefined
    },

    /** Notes that no connection is answered. */
    fail(reason: DatabaseUnavailable) {
      if (failure?.message !== reason.message) onChange('database', reason)
      failure = reason
    },

    /** Notes the outcome of a write that began at `start`. Writes that fail alone are told of once, and once when they succeed. */
    noteWrite(start: number, error?: DatabaseUnavailable) {
      if (!error) writtenAt = performance.now()
      else if (failure || error.isMomentary || writtenAt > start) return
      if (Boolean(writeFailure) !== Boolean(error)) onChange('database writes', error)
      writeFailure = error
    },
  }
}
