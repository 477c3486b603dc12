import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
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
    const options = { host: '10.0.0.1', port: 443, token: 'the token', ca: 'the ca.crt', namespace: 'the namespace' }
    expect(inClusterOptions(env, directory)).toEqual({ ...options, name: 'users-db' })
    expect(inClusterOptions({ ...env, SECRET_NAME: 'another' }, directory)).toEqual({ ...options, name: 'another' })
  })

  test('outside of a pod it says so', () => {
    expect(() => inClusterOptions({}, directory)).toThrow('ensure-secret works only in a pod')
  })

  test('without a token it names the file', () => {
    expect(() => inClusterOptions(env, '/nowhere')).toThrow('/nowhere/token cannot be read')
  })
})

describe('ensureSecret', () => {
  const options = { host: '127.0.0.1', token: 't', ca: '', namespace: 'users', name: 'users-db' }

  test('tries again while nothing listens, and gives up in time', async () => {
    const begun = performance.now()
    await expect(ensureSecret({ ...options, port: 1, timeoutMs: 1200 })).rejects.toThrow(
      'The Kubernetes API at 127.0.0.1:1 cannot be reached',
    )
    expect(performance.now() - begun).toBeGreaterThan(400)
    expect(performance.now() - begun).toBeLessThan(3000)
  })

  test('tries again when connections are cut', async () => {
    let connections = 0
    const server = createServer((socket) => {
      connections++
      socket.destroy()
    })
    const port = await new Promise<number>((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
    })
    await expect(ensureSecret({ ...options, port, timeoutMs: 1200 })).rejects.toThrow('cannot be reached')
    server.close()
    expect(connections).toBeGreaterThan(1)
  })
})
