import { Hono } from 'hono'
import type { Env } from './env.ts'
import { unavailableProblem } from './problem.ts'

export type HealthOptions = {
  /** Asks the database; rejects when it does not answer. */
  ping(): Promise<void>
  /** Whether this process is about to stop. */
  draining(): boolean
}

/** `/livez` for "restart me", `/readyz` for "send me requests": only the second asks the database, or its failure would restart every pod. */
export const health = ({ ping, draining }: HealthOptions) =>
  new Hono<Env>()
    .get('/livez', (c) => c.json({ status: 'ok' }))
    .get('/readyz', async (c) => {
      if (draining()) throw unavailableProblem('This process is stopping.')
      await ping()
      return c.json({ status: 'ok' })
    })
