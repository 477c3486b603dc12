import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { generate } from 'selfsigned'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { ensureSecret, inClusterOptions } from './ensure-secret.ts'

// What it does with a real API server is in test/e2e/permissions.e2e.ts.

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'service-account-'))
  for (const file of ['token', 'ca.crt', 'namespace']) await writeFile(join(directory, file), `the ${file}\n`)
})
afterAll(() => rm(directory, { recursive: true }))

describe('inClusterOptions', () => {
  const env = { KUBERNETES_SERVICE_HOST: '10.0.0.1', KUBERNETES_SERVICE_PORT: '443' }

  test("reads the pod's environment and the mounted token", () => {
    const options = { server: 'https://10.0.0.1:443', token: 'the token', ca: 'the ca.crt', namespace: 'the namespace' }
    expect(inClusterOptions(env, directory)).toMatchObject({ ...options, name: 'users-db' })
    expect(inClusterOptions({ ...env, SECRET_NAME: 'another' }, directory)).toMatchObject({ name: 'another' })
  })

  test('takes an IPv6 address', () => {
    const { server } = inClusterOptions({ ...env, KUBERNETES_SERVICE_HOST: 'fd00::1' }, directory)
    expect(server).toBe('https://[fd00::1]:443')
  })

  test('outside of a pod it says so', () => {
    expect(() => inClusterOptions({}, directory)).toThrow('ensure-secret works only in a pod')
  })

  test('without a token it says where that should be', () => {
    expect(() => inClusterOptions(env, '/nowhere')).toThrow("a service account's token in /nowhere.")
  })
})

describe('ensureSecret', () => {
  const certificate = () =>
    generate([{ name: 'commonName', value: 'kubernetes' }], {
      keyType: 'ec',
      extensions: [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }],
    })
  let pem: Awaited<ReturnType<typeof certificate>>
  beforeAll(async () => {
    pem = await certificate()
  })
  const optionsFor = (port: number) => ({
    server: `https://127.0.0.1:${port}`,
    ca: pem.cert,
    token: 't',
    namespace: 'test',
    name: 'users-db',
    waitMs: 1200,
  })

  /** An API server that answers so; the options to call it with, and the requests that it got. */
  async function startServer(answer: RequestListener) {
    const requests: string[] = []
    const server = createServer({ key: pem.private, cert: pem.cert }, (request, response) => {
      requests.push(`${request.method} ${request.url}`)
      response.setHeader('content-type', 'application/json')
      return answer(request, response)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => {
      server.close()
      server.closeAllConnections()
    })
    return { requests, options: optionsFor((server.address() as AddressInfo).port) }
  }

  const [GET, POST] = ['GET /api/v1/namespaces/test/secrets/users-db', 'POST /api/v1/namespaces/test/secrets']

  /** An API server that keeps one Secret. */
  async function startStore(secret: { data?: Record<string, string> } = {}) {
    const kept = { ...secret }
    const { requests, options } = await startServer(async (request, response) => {
      expect(request.headers.authorization).toBe('Bearer t')
      if (request.method === 'GET') return void response.writeHead(kept.data ? 200 : 404).end(JSON.stringify(kept))
      const { stringData, metadata } = JSON.parse(await text(request))
      if (kept.data) return void response.writeHead(409).end('{"message":"already exists"}')
      expect(metadata).toMatchObject({ name: 'users-db' })
      kept.data = stringData
      response.writeHead(201).end(JSON.stringify(kept))
    })
    return { kept, requests, options }
  }

  test('creates the Secret with two random passwords, and leaves it as it is the next time', async () => {
    const { kept, requests, options } = await startStore()
    expect(await ensureSecret(options)).toBe('created')
    const made = { ...kept.data }
    expect(Object.keys(made).sort()).toEqual(['owner-password', 'password'])
    for (const password of Object.values(made)) expect(password).toMatch(/^[\w-]{32}$/)
    expect(new Set(Object.values(made)).size).toBe(2)
    expect(await ensureSecret(options)).toBe('exists')
    expect(kept.data).toEqual(made)
    expect(requests).toEqual([GET, POST, GET])
  })

  test('of eight callers at once one creates it', async () => {
    const { options } = await startStore()
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => ensureSecret(options)))
    expect(outcomes.sort()).toEqual(['created', ...Array(7).fill('exists')])
  })

  test('a Secret that lacks a key is an error that names it, at once', async () => {
    const { options, requests } = await startStore({ data: { password: 'x' } })
    await expect(ensureSecret(options)).rejects.toThrow('Secret test/users-db lacks owner-password.')
    expect(requests).toEqual([GET])
  })

  test.each([401, 403, 429, 500, 503])('tries again after a %d', async (status) => {
    let refusals = 0
    const { options } = await startServer((_, response) => {
      if (refusals++ < 2) return void response.writeHead(status).end('{"message":"not now"}')
      response.end('{"data":{"password":"x","owner-password":"y"}}')
    })
    expect(await ensureSecret({ ...options, waitMs: 60_000 })).toBe('exists')
  })

  test('tries again after an answer that is no JSON', async () => {
    let answers = 0
    const { options } = await startServer((_, response) => {
      if (answers++ === 0) return void response.writeHead(502, { 'content-type': 'text/html' }).end('<html>')
      response.end('{"data":{"password":"x","owner-password":"y"}}')
    })
    expect(await ensureSecret({ ...options, waitMs: 60_000 })).toBe('exists')
  })

  test('gives up after a 403 that stays, with the reason of the API and what to apply', async () => {
    const { options } = await startServer((_, response) => {
      response.writeHead(403).end('{"message":"secrets is forbidden"}')
    })
    await expect(ensureSecret(options)).rejects.toThrow(
      'ensure-secret cannot get Secret users-db in namespace test: secrets is forbidden (403). Apply the Role',
    )
  })

  test('gives up at once after a refusal that does not pass', async () => {
    const { options, requests } = await startServer((request, response) => {
      response.writeHead(request.method === 'GET' ? 404 : 422).end('{"message":"name is invalid"}')
    })
    await expect(ensureSecret(options)).rejects.toThrow(
      'ensure-secret cannot create Secrets in namespace test: name is invalid (422).',
    )
    expect(requests).toEqual([GET, POST])
  })

  test('does not trust a certificate of another authority', async () => {
    const { options, requests } = await startServer((_, response) => response.end('{}'))
    const { cert: ca } = await certificate()
    await expect(ensureSecret({ ...options, ca })).rejects.toThrow(/cannot be reached: .*certificate/)
    expect(requests).toEqual([])
  })

  test('tries again while nothing listens, and gives up in time', async () => {
    const options = optionsFor(await freePort())
    const begun = performance.now()
    await expect(ensureSecret(options)).rejects.toThrow(
      new RegExp(`^The Kubernetes API at ${options.server} cannot be reached: .*ECONNREFUSED`),
    )
    expect(performance.now() - begun).toBeGreaterThan(1200)
  })

  test('tries again when connections are cut', async () => {
    let connections = 0
    const server = createTcpServer((socket) => {
      connections++
      socket.destroy()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const options = optionsFor((server.address() as AddressInfo).port)
    await expect(ensureSecret(options)).rejects.toThrow('cannot be reached')
    expect(connections).toBeGreaterThan(1)
  })
})
