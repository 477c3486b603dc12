import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import type { Refusal } from '../resource.ts'
import { json } from './answer.ts'
import { ENTITY_TAG, ENTITY_TAGS, entityTag } from './conditional.ts'
import type { Env } from './env.ts'
import { IDEMPOTENCY_KEY } from './idempotency.ts'
import { bodyTooLarge } from './limits.ts'
import { pageSchema } from './list.ts'
import { NDJSON_MEDIA_TYPE } from './ndjson.ts'
import { PathId } from './path.ts'
import { INTERNAL, PROBLEM_MEDIA_TYPE, Problem, problemDetails, problemJson, unavailableProblem } from './problem.ts'
import { refusal } from './refusal.ts'
import { PARSER_PROBLEMS } from './refuse.ts'
import { REQUEST_ID } from './request-id.ts'
import { invalidBody, PATCH_MEDIA_TYPES } from './validate.ts'

type JsonObject = Record<string, unknown>
type Schemas = Record<string, z.ZodType>
type Fields = z.ZodObject<Schemas>

export type ResourceOptions = {
  /** The words for one of it and for several, such as `user` and `users`. */
  name: string
  plural: string
  /** Where the collection is, such as `/users`. */
  path: string
  /** The schema of the list's query. The last call on each parameter is `meta`: its meaning and an example. */
  query: Fields
  /** The schemas of the body: of POST and PUT, and of PATCH. */
  input: Fields
  patch: Fields
  /** The schema of an answer, and what meets it. */
  item: z.ZodType
  example: JsonObject
  /** Why its store refuses something, besides what every store may. */
  refusals: readonly Refusal[]
}

export type OpenApiOptions = {
  /** Each is called when the description is first asked for. */
  resources: readonly (() => ReturnType<typeof describeResource>)[]
  maxBodyBytes: number
}

/** What any request can be answered, and what any request with a body can be. */
const ANY = [400, 408, 431, 500, 503]
const BODY = [413, 415]
/** Why each operation is refused. */
const OUTCOMES: Record<string, Refusal['outcome'][]> = {
  list: [],
  create: ['conflict', 'reference-missing', 'key-reused'],
  get: ['missing', 'stale'],
  replace: ['missing', 'stale', 'conflict', 'reference-missing'],
  patch: ['missing', 'stale', 'conflict', 'reference-missing'],
  delete: ['missing', 'stale', 'referenced'],
}

const DESCRIPTION = `${packageJson.description}.

Errors are problem details (RFC 9457). An ETag names a version: \`If-Match\` makes a change conditional, and
\`If-None-Match\` spares sending what the caller has (RFC 9110). There is no authentication: whoever can reach the
service can use it.`
const streamDescription = (plural: string) =>
  `By id, one page at a time. With \`Accept: ${NDJSON_MEDIA_TYPE}\` all ${plural} come as a stream of lines, each a JSON object. Only \`cursor\` goes with it. If the stream fails, its last line is a problem.`
/** Of answers that their examples do not explain. */
const PROBLEM_DESCRIPTIONS: Record<number, string> = {
  400: 'The request line, the headers, the path, the query or the body cannot be parsed.',
  422: 'The body breaks a rule: `errors` points at each fault. Or the Idempotency-Key was used with another body: `type` tells.',
}
const REQUEST_ID_EXAMPLE = '5f0c9a1e-8f5e-4c0e-9d55-2b7a3f1c6d90'
const JSON_ONLY = ['application/json']

const capitalized = (word: string) => word.charAt(0).toUpperCase() + word.slice(1)
const ref = (kind: string, name: string) => ({ $ref: `#/components/${kind}/${name}` })
const refs = (statuses: number[]) =>
  Object.fromEntries(statuses.map((status) => [status, ref('responses', `Problem${status}`)]))

function content(mediaTypes: readonly string[], schema: object, values: unknown[]) {
  const examples = Object.fromEntries(values.map((value, index) => [`example${index + 1}`, { value }]))
  return Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, { schema, examples }]))
}
const jsonContent = (schema: string, value: unknown) => content(JSON_ONLY, ref('schemas', schema), [value])

const answer = (description: string, headers: string[], content?: JsonObject) => ({
  description,
  headers: Object.fromEntries(['X-Request-Id', ...headers].map((name) => [name, ref('headers', name)])),
  ...(content && { content }),
})

/** An answer for each status. Its examples are the problems as the service sends them. */
function problemAnswers(problems: Problem[], instance: string): Record<number, JsonObject> {
  const answers = [...Map.groupBy(problems, ({ status }) => status)].map(([status, same]) => {
    const description = PROBLEM_DESCRIPTIONS[status] ?? same.map(({ message }) => message).join(' Or: ')
    const headers = Object.keys(same[0]?.options.headers ?? {})
    const examples = same.map((problem) => JSON.parse(problemJson(problem, instance, REQUEST_ID_EXAMPLE)))
    return [status, answer(description, headers, content([PROBLEM_MEDIA_TYPE], ref('schemas', 'Problem'), examples))]
  })
  return Object.fromEntries(answers)
}

const parametersOf = (place: 'path' | 'query', parameters: Fields) =>
  Object.entries(parameters.shape).map(([name, schema]) => {
    // zod leaves out the examples and the default of what is transformed.
    const { $schema, description, examples, ...rest } = { ...z.toJSONSchema(schema, { io: 'input' }), ...schema.meta() }
    return { name, in: place, required: place === 'path', description, schema: rest, example: examples?.[0] }
  })

/** JSON Schema of each. Answers may have members that a later release adds. */
function jsonSchemas(named: Schemas, io: 'input' | 'output') {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, {
    io,
    uri: (id) => ref('schemas', id).$ref,
    override: ({ jsonSchema }) => io === 'output' && delete jsonSchema.additionalProperties,
  })
  return Object.fromEntries(Object.entries(schemas).map(([id, { $id, $schema, ...schema }]) => [id, schema]))
}

/** The paths of a collection and its items, and their schemas. */
export function describeResource(resource: ResourceOptions) {
  const { name, plural, path, input, example } = resource
  const Name = capitalized(name)
  const refusals: Refusal[] = [
    { outcome: 'missing' },
    { outcome: 'stale' },
    { outcome: 'key-reused' },
    { outcome: 'referenced', by: 'rows of another resource' },
    ...resource.refusals,
  ]
  const invalid = invalidBody(input.safeParse({}).error?.issues ?? [])

  function operation(verb: string, noun: string, successes: JsonObject, more: JsonObject) {
    const refused = refusals
      .filter(({ outcome }) => OUTCOMES[verb]?.includes(outcome))
      .map((each) => refusal(name, each))
    const problems = more.requestBody ? [invalid, ...refused] : refused
    return {
      operationId: verb + capitalized(noun),
      summary: `${capitalized(verb)} ${noun}`,
      tags: [plural],
      ...more,
      responses: {
        ...successes,
        ...problemAnswers(problems, path),
        ...refs(more.requestBody ? [...ANY, ...BODY] : ANY),
      },
    }
  }
  const page = answer(`A page of ${plural}; or all of them, as a stream.`, ['Link'], {
    ...jsonContent(`${Name}Page`, { [plural]: [example], next: null }),
    ...content([NDJSON_MEDIA_TYPE], { type: 'string' }, [`${JSON.stringify(example)}\n`]),
  })
  const item = jsonContent(Name, example)
  const found = { 200: answer(`The ${name}.`, ['ETag'], item) }
  const created = { 201: answer(`The new ${name}.`, ['ETag', 'Location'], item) }
  const same = { 304: answer('The caller has this version.', ['ETag']) }
  const inputExample = Object.fromEntries(Object.keys(input.shape).map((key) => [key, example[key]]))
  const bodyOf = (mediaTypes: readonly string[], schema: string) => ({
    requestBody: { required: true, content: content(mediaTypes, ref('schemas', schema), [inputExample]) },
  })
  const whole = bodyOf(JSON_ONLY, `${Name}Input`)
  const part = bodyOf(PATCH_MEDIA_TYPES, `${Name}Patch`)
  const conditions = { parameters: [ref('parameters', 'If-Match'), ref('parameters', 'If-None-Match')] }
  const retry = { parameters: [ref('parameters', 'Idempotency-Key')] }
  const query = { parameters: parametersOf('query', resource.query), description: streamDescription(plural) }
  return {
    paths: {
      [path]: {
        get: operation('list', plural, { 200: page }, query),
        post: operation('create', name, created, { ...retry, ...whole }),
      },
      [`${path}/{id}`]: {
        parameters: parametersOf('path', PathId),
        get: operation('get', name, { ...found, ...same }, conditions),
        put: operation('replace', name, found, { ...conditions, ...whole }),
        patch: operation('patch', name, found, { ...conditions, ...part }),
        delete: operation('delete', name, { 204: answer('Deleted.', []) }, conditions),
      },
    },
    schemas: {
      ...jsonSchemas({ [`${Name}Input`]: input, [`${Name}Patch`]: resource.patch }, 'input'),
      ...jsonSchemas({ [Name]: resource.item, [`${Name}Page`]: pageSchema(plural, resource.item) }, 'output'),
    },
  }
}

const header = (description: string, schema: JsonObject, example: unknown) => ({ description, schema, example })
const text = ({ source }: RegExp) => ({ type: 'string', pattern: source })
const headers = {
  'X-Request-Id': header("The request's own X-Request-Id, or a new one.", text(REQUEST_ID), REQUEST_ID_EXAMPLE),
  'Retry-After': header('Seconds to wait before the next attempt.', { type: 'integer', minimum: 1 }, 1),
  ETag: header('The version.', text(ENTITY_TAG), entityTag(1)),
  Link: header('The next page (RFC 8288).', text(/^<.+>; rel="next"$/), '</path?cursor=...>; rel="next"'),
  Location: header('Where it is.', { type: 'string', format: 'uri-reference' }, '/path/1'),
}

const requestHeader = (name: string, ...rest: Parameters<typeof header>) => ({ name, in: 'header', ...header(...rest) })
const RETRY = 'Makes a retry safe: the same key and body get the same answer for as long as what they created exists.'
const parameters = {
  'If-Match': requestHeader('If-Match', 'Only if it is still at one of these versions.', text(ENTITY_TAGS), '"1"'),
  'If-None-Match': requestHeader('If-None-Match', 'Only if it is at none of these.', text(ENTITY_TAGS), '"2"'),
  'Idempotency-Key': requestHeader('Idempotency-Key', RETRY, text(IDEMPOTENCY_KEY), '9f8e7d6c'),
}

const health = (operationId: string, summary: string, statuses: number[]) => {
  const healthy = answer('Yes.', [], jsonContent('Health', { status: 'ok' }))
  return { get: { operationId, summary, tags: ['health'], responses: { 200: healthy, ...refs(statuses) } } }
}

function describe({ resources, maxBodyBytes }: OpenApiOptions) {
  const described = resources.map((describeOne) => describeOne())
  const { name: title, version, license } = packageJson
  const schemas = { Health: z.object({ status: z.literal('ok') }), Problem: problemDetails() }
  const problems = [
    ...Object.values(PARSER_PROBLEMS),
    bodyTooLarge(maxBodyBytes),
    new Problem(415, 'The body must be application/json in UTF-8.'),
    INTERNAL,
    unavailableProblem('The database cannot take this request now.'),
  ]
  const answers = Object.entries(problemAnswers(problems, '/path/of/the/request'))
  return {
    openapi: '3.1.1',
    info: { title, version, description: DESCRIPTION, license: { name: license, identifier: license } },
    servers: [{ url: '/' }],
    security: [],
    paths: Object.assign({}, ...described.map(({ paths }) => paths), {
      '/livez': health('getLiveness', 'Tell whether the process is alive', [400, 408, 431, 500]),
      '/readyz': health('getReadiness', 'Tell whether the database answers', ANY),
    }),
    components: {
      schemas: Object.assign(jsonSchemas(schemas, 'output'), ...described.map(({ schemas }) => schemas)),
      responses: Object.fromEntries(answers.map(([status, each]) => [`Problem${status}`, each])),
      headers,
      parameters,
    },
  }
}

/** `/openapi.json`: OpenAPI 3.1, made when it is first asked for. */
export function openApi(options: OpenApiOptions) {
  let description: ReturnType<typeof describe> | undefined
  return new Hono<Env>().get('/openapi.json', (c) => {
    description ??= describe(options)
    return json(c, description, 200)
  })
}
