import { Hono } from 'hono'
import { expect, test } from 'vitest'
import { preferred } from './accept.ts'

const app = new Hono().get('/', (c) => c.text(preferred(c, ['application/json', 'application/x-ndjson', 'text/html'])))

test.each([
  ['*/*', 'application/json'],
  ['application/x-ndjson', 'application/x-ndjson'],
  ['APPLICATION/X-NDJSON', 'application/x-ndjson'],
  ['application/x-ndjson, */*', 'application/x-ndjson'],
  ['application/x-ndjson;q=0.1, */*', 'application/json'],
  ['application/x-ndjson;q=0.5, application/json;q=0.4, */*', 'text/html'],
  ['application/x-ndjson, application/json', 'application/json'],
  ['application/x-ndjson, application/*;q=0.9', 'application/x-ndjson'],
  ['application/json;q=0, */*;q=0.1', 'application/x-ndjson'],
  ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'text/html'],
  ['text/*', 'text/html'],
  ['application/x-ndjson;q=0', 'application/json'],
  ['image/png', 'application/json'],
])('Accept: %s is answered with %s', async (accept, mediaType) => {
  expect(await (await app.request('/', { headers: { accept } })).text()).toBe(mediaType)
})
