import type { Database } from '../db/client.ts'
import { arrayText } from '../db/statement.ts'
import { type StoredUser, statements, toStored } from './statements.ts'

/** Ids a statement asks for at most, so that none waits long for the others. */
const BATCH_MAX = 100

type Waiting = { resolve(user: StoredUser | undefined): void; reject(error: unknown): void }

/**
 * Gets users by id; those that are asked for in the same turn of the event loop come with one statement, which
 * costs PostgreSQL and us a fraction of one for each. Nobody waits for it: the driver writes at the end of the turn.
 */
export function createGetQueue(db: Database) {
  let waiting = new Map<number, Waiting[]>()

  async function send(batch: Map<number, Waiting[]>) {
    try {
      const ids = [...batch.keys()]
      const rows = await (ids.length === 1
        ? statements.get(db.read, { id: ids[0] })
        : statements.getMany(db.read, { ids: arrayText(ids) }))
      for (const row of rows) {
        const stored = toStored(row)
        for (const { resolve } of batch.get(stored.user.id) ?? []) resolve(stored)
        batch.delete(stored.user.id)
      }
      for (const missed of batch.values()) for (const { resolve } of missed) resolve(undefined)
    } catch (error) {
      for (const failed of batch.values()) for (const { reject } of failed) reject(error)
    }
  }

  function flush() {
    if (waiting.size === 0) return
    const batch = waiting
    waiting = new Map()
    void send(batch)
  }

  return {
    get(id: number): Promise<StoredUser | undefined> {
      if (waiting.size === 0) setImmediate(flush)
      else if (waiting.size === BATCH_MAX) flush()
      return new Promise((resolve, reject) => {
        const others = waiting.get(id)
        if (others) others.push({ resolve, reject })
        else waiting.set(id, [{ resolve, reject }])
      })
    },
  }
}
