import { Hono } from 'hono'
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { unavailableProblem } from './problem.ts'

/**
 * `/livez` for "restart me", `/readyz` for "send me requests": only the second asks the database, or its failure would
 * restart every pod.
 * @param ready resolves when requests can be served, as far as the database is concerned; rejects with DatabaseUnavailable
 * @param draining whether this process is about to stop
 */
export const health = ({ ready, draining }: { ready(): Promise<void>; draining(): boolean }) =>
  new Hono<Env>()
    .get('/livez', (c) => json(c, { status: 'ok' }, 200))
    .get('/readyz', async (c) => {
      if (draining()) throw unavailableProblem('This process is stopping.')
      await ready()
      return json(c, { status: 'ok' }, 200)
    })
