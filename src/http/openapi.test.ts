import { Validator } from '@seriousme/openapi-schema-validator'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startIssuer } from '../../dev/issuer.ts'
import { type Api, startApi } from '../../test/api.ts'
import { createAjv } from '../../test/contract.ts'
import { createApp } from '../app.ts'
import { parseConfig } from '../config.ts'
import { describeUsers, UserPatch } from '../users/schemas.ts'
import type { UserStore } from '../users/store.ts'
import { IDEMPOTENCY_KEY } from './idempotency.ts'
import { bodyTooLarge } from './limits.ts'
import { ID, LIMIT_MAX } from './list.ts'
import { MAX_HEADER_BYTES, PARSER_PROBLEMS } from './listener.ts'
import { openApi } from './openapi.ts'
import { INTERNAL, PROBLEM_HEADERS, problemJson, refuse, TITLES } from './problem.ts'
import { quotaExceeded } from './rate-limit.ts'
import { problemOf } from './refusal.ts'
import { JSON_MEDIA_TYPES, NDJSON_MEDIA_TYPE, PATCH_MEDIA_TYPES, unsupported } from './validate.ts'

// biome-ignore lint/suspicious/noExplicitAny: the description is looked into at every depth.
let description: any
let api: Api
beforeAll(async () => {
  api = await startApi()
  description = (await api.request('GET', '/openapi.json')).body
})
afterAll(() => api.close())

const methods = ['get', 'put', 'post', 'delete', 'patch'] as const
const operations = () =>
  Object.entries(description.paths).flatMap(([path, item]) =>
    // biome-ignore lint/suspicious/noExplicitAny: as above.
    methods.flatMap((method) => ((item as any)[method] ? [{ path, method, ...(item as any)[method] }] : [])),
  )

type Schema = {
  $ref?: string
  examples?: unknown[]
  type?: string
  items?: Schema
  properties?: Record<string, Schema>
}

/** What a reference points at; all else as it is. */
function resolved<T extends { $ref?: string }>(part: T | undefined): T | undefined {
  let at = part?.$ref ? description : part
  for (const key of part?.$ref?.split('/').slice(1) ?? []) at = at[key]
  return at
}

test('is valid OpenAPI 3.1', async () => {
  const validator = new Validator()
  const { valid, errors } = await validator.validate(structuredClone(description))
  expect(valid, JSON.stringify(errors)).toBe(true)
  expect(validator.version).toBe('3.1')
})

/** What the description is for, not about. */
const OWN_PATHS = ['/', '/openapi.json', '/docs', '/assets/:hash/:name']

/** The app as far as its routes go. */
const appWith = (env: Record<string, string>) =>
  createApp({
    ...parseConfig(env),
    users: {} as UserStore,
    log: pino({ level: 'silent' }),
    ready: async () => {},
    stopping: new AbortController().signal,
  })

test.each([
  [{}],
  [{ PAGE: 'off' }],
  [{ AUTH_IAP_AUDIENCE: 'users-api', AUTH_IAP_JWKS_URL: 'http://localhost:1', RATE_LIMIT: '1/1' }],
])("Hono's fastest router knows all routes with %o", async (env) => {
  const { router } = await appWith(env)
  router.match('GET', '/users/1')
  expect(router.name).toContain('RegExpRouter')
})

test('has every route of the app but its own, and no other', async () => {
  const app = await appWith({ PAGE: 'off' })
  const routes = app.routes
    .filter(({ method, path }) => method !== 'ALL' && !path.includes('*') && !OWN_PATHS.includes(path))
    .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, '{$1}')}`)
  const described = operations().map(({ path, method }) => `${method} ${path}`)
  expect(described.sort()).toEqual([...new Set(routes)].sort())
})

test('names each operation once', () => {
  const ids = operations().map(({ operationId }) => operationId)
  expect(new Set(ids).size).toBe(ids.length)
  expect(ids.every((id) => /^[a-z][A-Za-z]+$/.test(id))).toBe(true)
})

/** The example of a schema, made as tools do: of those of its members, where it has none of its own. */
function exampleOf(part: Schema): unknown {
  const { examples, type, items, properties = {} } = resolved(part) as Schema
  if (examples || type !== 'object') return items ? [exampleOf(items)] : examples?.[0]
  return Object.fromEntries(Object.entries(properties).map(([name, member]) => [name, exampleOf(member)]))
}

test('has an example of every body, and each is valid', () => {
  const ajv = createAjv().addSchema(description, 'openapi')
  let examples = 0
  for (const { operationId, requestBody, responses } of operations()) {
    const contents = [requestBody, ...Object.values(responses)].flatMap((part) =>
      Object.values(resolved(part)?.content ?? {}),
    )
    for (const { schema, example = exampleOf(schema) } of contents as { schema: Schema; example?: unknown }[]) {
      const described = JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/'))
      expect(ajv.validate(described, example), `${operationId}: ${ajv.errorsText()}`).toBe(true)
      if (typeof example === 'object') expect(Object.values(example ?? {}), operationId).not.toContain(undefined)
      examples++
    }
  }
  expect(examples).toBeGreaterThan(50)
})

test('has an example of every parameter, and the service takes it', async () => {
  let examples = 0
  for (const { path, method, requestBody, parameters = [] } of operations()) {
    const body = requestBody && (exampleOf(requestBody.content['application/json'].schema) as object)
    for (const { in: place, name, example: given, schema } of [
      ...(description.paths[path].parameters ?? []),
      ...parameters,
    ].map(resolved)) {
      expect(createAjv().validate(schema, given), name).toBe(true)
      const target = path.replace('{id}', place === 'path' ? given : '1')
      const query = place === 'query' ? `?${new URLSearchParams({ [name]: given })}` : ''
      const headers = place === 'header' ? { [name]: given } : {}
      const { status } = await api.request(method.toUpperCase(), target + query, body, headers)
      expect(status, `${method} ${path} ${name}`).toBeOneOf([200, 201, 204, 304, 404, 409, 412])
      examples++
    }
  }
  expect(examples).toBeGreaterThan(8)
})

test('uses every component, and has each that it points at', () => {
  const text = JSON.stringify(description)
  const used = new Set([...text.matchAll(/"#\/components\/([^"]+)"/g)].map(([, name]) => name))
  const named = Object.entries(description.components).flatMap(([kind, parts]) =>
    Object.keys(parts as object).map((name) => `${kind}/${name}`),
  )
  expect([...used].sort()).toEqual(named.sort())
})

test('says what the schemas say', () => {
  const { UserInput, User, Problem } = description.components.schemas
  expect(UserInput).toMatchObject({ required: ['username', 'email'], additionalProperties: false })
  expect(UserInput.properties.username).toMatchObject({ type: 'string', minLength: 1, maxLength: 80 })
  expect(User.properties.id).toMatchObject({ type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER })
  expect(User.properties.createdAt).toMatchObject({ type: 'string', format: 'date-time' })
  expect(Problem.properties.status).toMatchObject({ minimum: 400, maximum: 599 })
  expect(Problem.properties.type.enum).toContain('urn:problem-type:conflict')
  expect(Problem.required).toEqual(['type', 'title', 'status', 'detail', 'instance', 'requestId'])
})

test('says what the service says, where it was written by hand', () => {
  const { schemas, parameters } = description.components
  expect(parameters['Idempotency-Key'].schema.pattern).toBe(IDEMPOTENCY_KEY.source)
  const { examples, ...id } = ID
  expect(parameters.id).toMatchObject({ schema: id, example: examples[0] })
  expect(schemas.UserPage.properties.users.maxItems).toBe(LIMIT_MAX)
  expect(Object.keys(description.paths['/users'].get.responses[200].content)).toContain(NDJSON_MEDIA_TYPE)
  const { content } = description.paths['/users/{id}'].patch.requestBody
  expect(Object.keys(content)).toEqual(PATCH_MEDIA_TYPES)
})

test('has an example of each failure that is what the service says', () => {
  const problems = [
    ...Object.values(PARSER_PROBLEMS),
    problemOf('item', { outcome: 'missing' }),
    problemOf('item', { outcome: 'conflict', fields: ['name'] }),
    problemOf('item', { outcome: 'stale' }),
    bodyTooLarge(parseConfig({}).MAX_BODY_BYTES),
    unsupported(JSON_MEDIA_TYPES),
    problemOf('item', { outcome: 'reference-missing', field: 'ownerId' }),
    INTERNAL,
    refuse('database'),
  ]
  const { responses, headers } = description.components
  const described = Object.keys(responses).filter((name) => name.startsWith('Problem'))
  expect(described.sort()).toEqual(problems.map(({ status }) => `Problem${status}`).sort())
  for (const problem of problems) {
    const { status, message, options } = problem
    const response = responses[`Problem${status}`]
    expect(response.description).toBe(`${TITLES[status]}. For example: ${message}`)
    expect(Object.keys(response.headers)).toEqual(['X-Request-Id', ...Object.keys(options.headers ?? {})])
    const example = JSON.parse(problemJson(problem, '/path', headers['X-Request-Id'].example))
    expect(response.content[PROBLEM_HEADERS['Content-Type']].example).toEqual(example)
  }
})

test('describes 429, and what is left, only where clients are limited', async () => {
  expect(JSON.stringify(description)).not.toMatch(/429|RateLimit|quota/i)
  const limited = await startApi({ RATE_LIMIT: '100/60' })
  onTestFinished(() => limited.close())
  const { body } = await limited.request('GET', '/openapi.json')
  expect((await new Validator().validate(structuredClone(body))).valid).toBe(true)
  const { paths, components } = body
  for (const { path, method } of operations()) {
    const { responses } = paths[path][method]
    expect(Object.hasOwn(responses, '429'), path).toBe(!path.endsWith('z'))
  }
  const { description: text, headers, content } = components.responses.Problem429
  const problem = quotaExceeded(30)
  expect(text).toBe(`${TITLES[429]}. For example: ${problem.message}`)
  expect(Object.keys(headers)).toEqual(['X-Request-Id', 'RateLimit-Policy', 'RateLimit', 'Retry-After'])
  const { schema, example } = content[PROBLEM_HEADERS['Content-Type']]
  expect(example).toEqual(JSON.parse(problemJson(problem, '/path', components.headers['X-Request-Id'].example)))
  const ajv = createAjv().addSchema(body, 'openapi')
  expect(ajv.validate({ $ref: `openapi${schema.$ref}` }, example), ajv.errorsText()).toBe(true)
  expect(Object.keys(paths['/users'].get.responses[200].headers)).toContain('RateLimit')
})

test('lets answers gain members, and requests none', () => {
  const { UserInput, UserPatch, ...answers } = description.components.schemas
  expect([UserInput, UserPatch].map((schema) => schema.additionalProperties)).toEqual([false, false])
  expect(JSON.stringify(answers)).not.toContain('additionalProperties')
})

describe('with authentication', () => {
  const scopes = { AUTH_READ_SCOPE: 'look', AUTH_WRITE_SCOPE: 'change' }
  const url = 'http://localhost:1'
  const tokens = { AUTH_ISSUER: url, AUTH_AUDIENCE: 'users-api' }
  const iap = { AUTH_IAP_AUDIENCE: 'users-api', AUTH_IAP_JWKS_URL: url }
  const of = async (ways: Record<string, string>) => {
    const app = openApi({ ...parseConfig({ ...scopes, ...ways }), resources: [describeUsers] })
    return JSON.parse(await (await app.request('/openapi.json')).text())
  }

  test('is valid, and has all that it points at', async () => {
    const secured = await of({ ...tokens, ...iap })
    const { valid, errors } = await new Validator().validate(structuredClone(secured))
    expect(valid, JSON.stringify(errors)).toBe(true)
    for (const [, kind, name] of JSON.stringify(secured).matchAll(/"#\/components\/(\w+)\/([^"]+)"/g)) {
      expect(Object.keys(secured.components[kind ?? '']), kind).toContain(name)
    }
    expect(secured.info.description).not.toContain('no authentication')
  })

  test('says that a call without a way in of its own needs none, as it does without authentication', async () => {
    expect((await of(tokens)).security).toEqual([])
    const open = openApi({ ...parseConfig({}), resources: [describeUsers] })
    expect(await (await open.request('/openapi.json')).json()).toMatchObject({ security: [] })
  })

  test.each([
    [tokens, ['accessToken']],
    [iap, ['iap']],
    [{ ...tokens, ...iap }, ['accessToken', 'iap']],
  ])('names the ways in that there are, and the scope of each call: %o', async (ways, names) => {
    const { paths, components } = await of(ways)
    expect(Object.keys(components.securitySchemes)).toEqual(names)
    for (const [path, item] of Object.entries(paths)) {
      for (const method of methods) {
        const operation = (item as Record<string, { security?: object; responses: object }>)[method]
        if (!operation) continue
        const scope = method === 'get' ? 'look' : 'change'
        const expected = names.map((name) => ({ [name]: name === 'iap' ? [] : [scope] }))
        const isOpen = path.endsWith('z')
        expect(operation.security, `${method} ${path}`).toEqual(isOpen ? undefined : expected)
        for (const status of ['401', '403']) expect(Object.hasOwn(operation.responses, status)).toBe(!isOpen)
      }
    }
  })

  test('has the answers that the service gives', async () => {
    const issuer = await startIssuer()
    onTestFinished(() => issuer.close())
    const app = await appWith({ ...scopes, ...issuer.env })
    const { components } = await of(issuer.env)
    const headers = { 'X-Request-Id': components.headers['X-Request-Id'].example }
    for (const [status, more] of [
      [401, {}],
      [403, { authorization: `Bearer ${await issuer.sign()}` }],
    ] as const) {
      const answer = await app.request('/path', { headers: { ...headers, ...more } })
      expect(answer.status).toBe(status)
      const { description, headers: described, content } = components.responses[`Problem${status}`]
      const problem = JSON.parse(await answer.text())
      expect(content[PROBLEM_HEADERS['Content-Type']].example).toEqual(problem)
      expect(description).toBe(`${TITLES[status]}. For example: ${problem.detail}`)
      expect(Object.keys(described)).toEqual(['X-Request-Id', 'WWW-Authenticate'])
    }
    const { headers: challenged } = await app.request('/path')
    expect(components.headers['WWW-Authenticate'].example).toBe(challenged.get('www-authenticate'))
  })
})

test('has the limits of the settings', async () => {
  const small = await startApi({ MAX_BODY_BYTES: '1234' })
  onTestFinished(() => small.close())
  const { components } = (await small.request('GET', '/openapi.json')).body
  expect(components.responses.Problem413.description).toContain('at most 1234 bytes')
  expect(components.responses.Problem431.description).toContain(String(MAX_HEADER_BYTES))
})

test('gives a username the pattern that the service goes by', () => {
  const { username } = description.components.schemas.UserInput.properties
  const pattern = new RegExp(username.pattern, 'u')
  const accepted = (text: string) => UserPatch.safeParse({ username: text }).success
  // Of what is invisible beyond U+FFFF no pattern that every language reads can tell.
  const characters = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).filter((text) =>
    text.isWellFormed(),
  )
  const differing = characters.filter((character) => pattern.test(character) !== accepted(character))
  expect(differing.map((character) => character.charCodeAt(0).toString(16))).toEqual([])
  const special = fc.constantFrom(...' \u0007\u00ad\u200da\u{1f600}')
  fc.assert(
    fc.property(fc.string({ unit: special, maxLength: 6 }), (text) => {
      expect(pattern.test(text), JSON.stringify(text)).toBe(accepted(text))
    }),
  )
})
