import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createApp } from '../../src/app.ts'
import { parseConfig } from '../../src/config.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { createUserStore } from '../../src/users/store.ts'
import { createTestPool } from '../database.ts'

const METHODS = ['GET', 'HEAD', 'DELETE', 'OPTIONS', 'PROPFIND', 'SUBSCRIBE']

test('100,000 random paths, methods and hosts add no series', async () => {
  const db = await createTestPool()
  const metrics = createMetrics(db)
  const app = await createApp({
    ...parseConfig({}),
    users: createUserStore(db),
    log: pino({ level: 'silent' }),
    stopping: new AbortController().signal,
    ready: async () => {},
  })
  const seriesAfter = async (count: number) => {
    for (let i = 0; i < count; i++) {
      // Its letter keeps a word of digits alone from being the id of a user, which answers with another status.
      const [word, method] = [`w${Math.random().toString(36).slice(2)}`, METHODS[i % METHODS.length] ?? 'GET']
      const paths = [`/${word}`, `/users/${word}`, `/${word}/${i}?${word}=${i}`, `/users/x%22${word}`, `/users/9${i}`]
      const path = paths[(i >> 3) % paths.length]
      await app.request(`http://${word}.example${path}`, { method: i % 7 === 0 ? `X${word}` : method })
    }
    const text = await (await metrics.request('/metrics')).text()
    return [...text.matchAll(/^http_server_request_duration_seconds_count.*(?= )/gm)].map(([line]) => line).sort()
  }
  const first = await seriesAfter(1000)
  expect(first.length).toBeLessThan(30)
  expect(await seriesAfter(100_000)).toEqual(first)
  await db.close()
})
