import { commonHeaders, commonProblems, problemOf, schemaRef } from '../http/docs.ts'
import { NDJSON_MEDIA_TYPE } from '../http/ndjson.ts'
import { encodeCursor } from './cursor.ts'
import { LIMIT_DEFAULT, LIMIT_MAX, NewUser, PATCH_MEDIA_TYPES, User, UserPage, UserPatch } from './schemas.ts'

export const userSchemas = { input: { NewUser, UserPatch }, output: { User, UserPage } }

const alice = {
  id: 1,
  username: 'Alice',
  email: 'alice@example.com',
  createdAt: '2026-01-02T03:04:05.678Z',
  updatedAt: '2026-01-02T03:04:05.678Z',
}
const newAlice = { username: 'Alice', email: 'alice@example.com' }

const json = (name: string, value: unknown) => ({
  'application/json': { schema: schemaRef(name), examples: { example: { value } } },
})
const header = (description: string, example: string) => ({ description, schema: { type: 'string' }, example })
const etag = { ETag: header("The user's version.", '"1"') }
const user = (description: string, headers: Record<string, unknown> = {}) => ({
  description,
  headers: { ...commonHeaders, ...etag, ...headers },
  content: json('User', alice),
})
const headerParameter = (name: string, description: string, example: string) => ({
  name,
  in: 'header',
  description,
  schema: { type: 'string' },
  example,
})
const queryParameter = (name: string, description: string, schema: object, example: unknown) => ({
  name,
  in: 'query',
  description,
  schema,
  example,
})

const id = {
  name: 'id',
  in: 'path',
  required: true,
  schema: { type: 'integer', format: 'int64', minimum: 1 },
  example: 1,
}
const ifMatch = headerParameter('If-Match', 'Only if the user is at this version still (RFC 9110).', '"1"')
const ifNoneMatch = headerParameter('If-None-Match', 'Only if the user is no longer at this version.', '"1"')

const tooLarge = problemOf('The body is too large.')
const unsupported = problemOf('The body is of another media type.')
const invalid = problemOf('The body breaks a rule: `errors` points at each fault.')
const conflict = problemOf('Another user has this username or email: `errors` says which.')
const notFound = problemOf('There is no such user.')
const stale = problemOf('The user is not, or no longer, at the version that If-Match names.')
const bodyProblems = { 413: tooLarge, 415: unsupported, 422: invalid }
const tags = ['users']

/** What the description says of the routes in routes.ts. */
export const userPaths = {
  '/users': {
    get: {
      operationId: 'listUsers',
      summary: 'List users by id, a page at a time, or look one up',
      tags,
      parameters: [
        queryParameter(
          'limit',
          'Users a page.',
          { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT },
          10,
        ),
        queryParameter('cursor', '`next` of the page before.', { type: 'string' }, encodeCursor(10)),
        queryParameter('username', 'Only the user of this name, whatever its case.', { type: 'string' }, 'Alice'),
        queryParameter('email', 'Only the user of this address, whatever its case.', { type: 'string' }, alice.email),
      ],
      responses: {
        200: {
          description: 'A page of users.',
          headers: { ...commonHeaders, Link: header('The next page (RFC 8288).', '</users?cursor=...>; rel="next"') },
          content: {
            ...json('UserPage', { users: [alice], next: null }),
            [NDJSON_MEDIA_TYPE]: {
              schema: {
                type: 'string',
                description: 'Every user, one JSON object a line; a problem as the last if it fails.',
              },
              examples: { example: { value: `${JSON.stringify(alice)}\n` } },
            },
          },
        },
        ...commonProblems,
      },
    },
    post: {
      operationId: 'createUser',
      summary: 'Create a user',
      tags,
      parameters: [
        headerParameter(
          'Idempotency-Key',
          'Makes a retry safe: the same key and body get the same answer for as long as the user exists.',
          '9f8e7d6c',
        ),
      ],
      requestBody: { required: true, content: json('NewUser', newAlice) },
      responses: {
        201: user('Created.', { Location: header('Where the user is.', '/users/1') }),
        409: conflict,
        ...bodyProblems,
        ...commonProblems,
      },
    },
  },
  '/users/{id}': {
    parameters: [id],
    get: {
      operationId: 'getUser',
      summary: 'Get a user',
      tags,
      parameters: [ifNoneMatch, ifMatch],
      responses: {
        200: user('The user.'),
        304: { description: 'The caller has this version.', headers: { ...commonHeaders, ...etag } },
        404: notFound,
        412: stale,
        ...commonProblems,
      },
    },
    put: {
      operationId: 'replaceUser',
      summary: "Replace a user's username and email",
      tags,
      parameters: [ifMatch, ifNoneMatch],
      requestBody: { required: true, content: json('NewUser', newAlice) },
      responses: {
        200: user('Replaced.'),
        404: notFound,
        409: conflict,
        412: stale,
        ...bodyProblems,
        ...commonProblems,
      },
    },
    patch: {
      operationId: 'patchUser',
      summary: "Change a user's username, email or both, by JSON merge patch (RFC 7396)",
      tags,
      parameters: [ifMatch, ifNoneMatch],
      requestBody: {
        required: true,
        content: Object.fromEntries(
          PATCH_MEDIA_TYPES.map((type) => [
            type,
            { schema: schemaRef('UserPatch'), examples: { email: { value: { email: alice.email } } } },
          ]),
        ),
      },
      responses: {
        200: user('Changed; or as it was, for an empty patch.'),
        404: notFound,
        409: conflict,
        412: stale,
        ...bodyProblems,
        ...commonProblems,
      },
    },
    delete: {
      operationId: 'deleteUser',
      summary: 'Delete a user',
      tags,
      parameters: [ifMatch, ifNoneMatch],
      responses: {
        204: { description: 'Deleted.', headers: commonHeaders },
        404: notFound,
        412: stale,
        ...commonProblems,
      },
    },
  },
}
