import { Hono } from 'hono'
import { json } from './answer.ts'
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
    .get('/livez', (c) => json(c, { status: 'ok' }, 200))
    .get('/readyz', async (c) => {
      if (draining()) throw unavailableProblem('This process is stopping.')
      await ping()
      return json(c, { status: 'ok' }, 200)
    })
