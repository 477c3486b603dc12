import { Hono } from 'hono'
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { unavailableProblem } from './problem.ts'

/**
 * `/livez` for "restart me", `/readyz` for "send me requests": only the second asks the database, or its failure would
 * restart every pod.
 */
export const health = ({ ready, stopping }: { ready(): Promise<void>; stopping: AbortSignal }) =>
  new Hono<Env>()
    .get('/livez', (c) => json(c, { status: 'ok' }, 200))
    .get('/readyz', async (c) => {
      if (stopping.aborted) throw unavailableProblem('This process is stopping.')
      await ready()
      return json(c, { status: 'ok' }, 200)
    })
