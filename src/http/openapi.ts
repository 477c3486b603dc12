import { Hono } from 'hono'
import * as z from 'zod'
import packageJson from '../../package.json' with { type: 'json' }
import { json } from './answer.ts'
import type { Env } from './env.ts'
import { bodyTooLarge } from './limits.ts'
import { LIMIT_MAX } from './list.ts'
import { NDJSON_MEDIA_TYPE } from './ndjson.ts'
// What needs no code: the health paths, headers, parameters, and the schema of problems.
import base from './openapi.json' with { type: 'json' }
import { PathId } from './path.ts'
import { INTERNAL, PROBLEM_MEDIA_TYPE, problemJson, TITLES, unavailableProblem } from './problem.ts'
import { refusal } from './refusal.ts'
import { PARSER_PROBLEMS } from './refuse.ts'
import { JSON_MEDIA_TYPES, PATCH_MEDIA_TYPES, unsupported } from './validate.ts'

type Fields = z.ZodObject<Record<string, z.ZodType>>

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
  /** The schema of an answer. Here and above each member has an example, of which tools make that of the whole. */
  item: Fields
}

export type OpenApiOptions = {
  /** Each is called when the description is first asked for. */
  resources: readonly (() => ReturnType<typeof describeResource>)[]
  maxBodyBytes: number
}

/** The statuses with which every request can fail; those that need an item; those with a body. */
const ANY = [400, 408, 431, 500, 503]
const ITEM = [404, 412]
const BODY = [409, 413, 415, 422]

const capitalized = (word: string) => word.charAt(0).toUpperCase() + word.slice(1)
const ref = (kind: keyof typeof base.components, name: string) => ({ $ref: `#/components/${kind}/${name}` })
const content = (schema: string, mediaTypes = JSON_MEDIA_TYPES, more = {}) =>
  Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, { schema: ref('schemas', schema), ...more }]))

const response = (description: string, headers: string[], content: object) => ({
  description,
  headers: Object.fromEntries(['X-Request-Id', ...headers].map((name) => [name, ref('headers', name)])),
  content,
})

/** A response for each status of failures, with an example that the service's own code makes. */
function problemResponses(maxBodyBytes: number) {
  const problems = [
    ...Object.values(PARSER_PROBLEMS),
    refusal('item', { outcome: 'missing' }),
    refusal('item', { outcome: 'conflict', fields: ['name'] }),
    refusal('item', { outcome: 'stale' }),
    bodyTooLarge(maxBodyBytes),
    unsupported(JSON_MEDIA_TYPES),
    refusal('item', { outcome: 'reference-missing', field: 'ownerId' }),
    INTERNAL,
    unavailableProblem(),
  ]
  const responses = problems.map((problem) => {
    const { status, message, options } = problem
    const description = `${TITLES[status]}. For example: ${message}`
    const example = JSON.parse(problemJson(problem, '/path', base.components.headers['X-Request-Id'].example))
    const body = content('Problem', [PROBLEM_MEDIA_TYPE], { example })
    return [`Problem${status}`, response(description, Object.keys(options.headers ?? {}), body)]
  })
  return Object.fromEntries(responses)
}

const parametersOf = (place: 'path' | 'query', { shape }: Fields) =>
  Object.entries(shape).map(([name, member]) => {
    // zod leaves out the examples and the default of what is transformed.
    const { $schema, description, examples, ...schema } = {
      ...z.toJSONSchema(member, { io: 'input' }),
      ...member.meta(),
    }
    return { name, in: place, required: place === 'path', description, schema, example: examples?.[0] }
  })

/** The JSON Schema of a body or an answer; `changes` go into each schema within. */
function schemaOf(fields: Fields, changes = {}) {
  const override = ({ jsonSchema }: { jsonSchema: object }) => Object.assign(jsonSchema, changes)
  const { $schema, ...schema } = z.toJSONSchema(fields, { io: 'input', override })
  return schema
}

/** The paths of a collection and its items, and their schemas. */
export function describeResource({ name, plural, path, query, input, patch, item }: ResourceOptions) {
  const Name = capitalized(name)
  const operation = (verb: string, noun: string, successes: object, failures: number[], more: object) => ({
    operationId: verb + capitalized(noun),
    summary: `${capitalized(verb)} ${noun}`,
    tags: [plural],
    ...more,
    responses: {
      ...successes,
      ...Object.fromEntries([...ANY, ...failures].map((status) => [status, ref('responses', `Problem${status}`)])),
    },
  })
  const lines = content('Lines', [NDJSON_MEDIA_TYPE])
  const page = response(`A page of ${plural}; or all, as lines.`, ['Link'], { ...content(`${Name}Page`), ...lines })
  const found = response(`The ${name}.`, ['ETag'], content(Name))
  const created = response(`The new ${name}.`, ['ETag', 'Location'], content(Name))
  const notModified = ref('responses', 'NotModified')
  const deleted = ref('responses', 'Deleted')
  const retry = { parameters: [ref('parameters', 'Idempotency-Key')] }
  const conditions = { parameters: [ref('parameters', 'If-Match'), ref('parameters', 'If-None-Match')] }
  const whole = { requestBody: { required: true, content: content(`${Name}Input`) } }
  const part = { requestBody: { required: true, content: content(`${Name}Patch`, PATCH_MEDIA_TYPES) } }
  const rows = { type: 'array', maxItems: LIMIT_MAX, items: ref('schemas', Name) }
  const next = ref('schemas', 'Next')
  return {
    paths: {
      [path]: {
        get: operation('list', plural, { 200: page }, [], { parameters: parametersOf('query', query) }),
        post: operation('create', name, { 201: created }, BODY, { ...retry, ...whole }),
      },
      [`${path}/{id}`]: {
        parameters: parametersOf('path', PathId),
        get: operation('get', name, { 200: found, 304: notModified }, ITEM, conditions),
        put: operation('replace', name, { 200: found }, [...ITEM, ...BODY], { ...conditions, ...whole }),
        patch: operation('patch', name, { 200: found }, [...ITEM, ...BODY], { ...conditions, ...part }),
        delete: operation('delete', name, { 204: deleted }, [...ITEM, 409], conditions),
      },
    },
    schemas: {
      [`${Name}Input`]: schemaOf(input),
      [`${Name}Patch`]: schemaOf(patch),
      // Answers have no patterns: a later release may write values in another form.
      [Name]: schemaOf(item, { pattern: undefined }),
      [`${Name}Page`]: { type: 'object', required: [plural, 'next'], properties: { [plural]: rows, next } },
    },
  }
}

function describe({ resources, maxBodyBytes }: OpenApiOptions) {
  const described = resources.map((describeOne) => describeOne())
  const { name: title, version, description: summary, license } = packageJson
  const { info, paths, components } = base
  return {
    ...base,
    info: { title, version, summary, license: { name: license, identifier: license }, ...info },
    paths: Object.assign({}, ...described.map(({ paths }) => paths), paths),
    components: {
      ...components,
      schemas: Object.assign({}, components.schemas, ...described.map(({ schemas }) => schemas)),
      responses: { ...components.responses, ...problemResponses(maxBodyBytes) },
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
