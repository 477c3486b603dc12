import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { writeAssets } from '../../dev/assets.ts'
import { bundle } from '../../dev/build.ts'
import { WITHOUT_DATABASE } from '../../dev/warm.ts'
import { type Api, startApi } from '../../test/api.ts'
import { ROOT, run } from '../../test/process.ts'
import { ASSETS } from './assets.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

/** The answer with its bytes as they came. */
async function fetchRaw(url: string, encoding?: string): Promise<{ answer: IncomingMessage; bytes: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  get(url, { headers: encoding === undefined ? {} : { 'accept-encoding': encoding } }, resolve).on('error', reject)
  const answer = await promise
  return { answer, bytes: await buffer(answer) }
}

/** The assets that the page at /docs names, all but the icon's second time. */
async function assetsOf(url: string) {
  const html = await (await fetch(`${url}/docs`)).text()
  return new Set([...html.matchAll(/"(\/assets\/[^"]+)"/g)].map(([, path = '']) => path))
}

const FOREVER = 'public, max-age=31536000, immutable'
const nameIn = (path: string) => path.split('/').at(-1) as keyof typeof ASSETS

test('the sources serve each asset, to be kept for ever', async () => {
  const paths = await assetsOf(api.url)
  expect([...paths].map(nameIn).sort()).toEqual(Object.keys(ASSETS).sort())
  for (const path of paths) {
    const { answer, bytes } = await fetchRaw(api.url + path, 'br, gzip')
    expect(bytes.equals(readFileSync(ROOT + ASSETS[nameIn(path)]))).toBe(true)
    expect(answer.headers).toMatchObject({ 'cache-control': FOREVER, 'x-content-type-options': 'nosniff' })
    expect(answer.headers['x-request-id']).toBeDefined()
  }
})

test('an asset of another release is not kept, and what is no asset is not found', async () => {
  const { status, headers } = await fetch(`${api.url}/assets/0123456789ab/page.css`)
  expect([status, headers.get('cache-control')]).toEqual([200, 'no-cache'])
  for (const name of ['package.json', '..%2f..%2fpackage.json', 'toString', 'page.css.br', '']) {
    expect((await fetch(`${api.url}/assets/0123456789ab/${name}`)).status).toBe(404)
  }
  expect((await fetch(`${api.url}/assets/0123456789ab/page.css`, { method: 'POST' })).status).toBe(405)
})

test('a build serves them compressed, from its own folder', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-assets-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  await bundle(folder)
  writeAssets(join(folder, 'assets'))
  const service = run(process.execPath, [join(folder, 'main.js')], WITHOUT_DATABASE)
  const [, port] = await service.printed(/"port":(\d+)/)
  const url = `http://127.0.0.1:${port}`
  const paths = await assetsOf(url)
  expect(paths).toEqual(await assetsOf(api.url))
  for (const path of paths) {
    const source = readFileSync(ROOT + ASSETS[nameIn(path)])
    const [plain, br, gzip] = [
      await fetchRaw(url + path),
      await fetchRaw(url + path, 'gzip, br'),
      await fetchRaw(url + path, 'gzip'),
    ]
    expect(plain.bytes.equals(source)).toBe(true)
    expect([br.answer.headers['content-encoding'], gzip.answer.headers['content-encoding']]).toEqual(['br', 'gzip'])
    expect(brotliDecompressSync(br.bytes).equals(source)).toBe(true)
    expect(gunzipSync(gzip.bytes).equals(source)).toBe(true)
    expect(br.answer.headers).toMatchObject({ vary: 'Accept-Encoding', 'cache-control': FOREVER })
  }
  service.process.kill('SIGTERM')
  expect(await service.exited).toBe(0)
})
