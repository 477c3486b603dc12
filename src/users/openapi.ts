import { MAX_ID } from '../db/columns.ts'
import { commonHeaders, commonProblems, problemOf, ref } from '../http/docs.ts'
import { encodeCursor, LIMIT_DEFAULT, LIMIT_MAX } from '../http/list.ts'
import { NDJSON_MEDIA_TYPE } from '../http/ndjson.ts'
import { ProblemType } from '../http/problem.ts'
import { PATCH_MEDIA_TYPES } from '../http/validate.ts'
import { NewUser, UserPatch, userAnswers } from './schemas.ts'

export const userSchemas = () => ({ input: { NewUser, UserPatch }, output: userAnswers() })

const alice = {
  id: 1,
  username: 'Alice',
  email: 'alice@example.com',
  createdAt: '2026-01-02T03:04:05.678Z',
  updatedAt: '2026-01-02T03:04:05.678Z',
}
const newAlice = { username: alice.username, email: alice.email }

const content = (mediaTypes: readonly string[], schema: string, value: unknown) =>
  Object.fromEntries(
    mediaTypes.map((type) => [type, { schema: ref('schemas', schema), examples: { example: { value } } }]),
  )
const json = (schema: string, value: unknown) => content(['application/json'], schema, value)
const header = (description: string, example: string) => ({ description, schema: { type: 'string' }, example })
const etag = { ETag: ref('headers', 'ETag') }
const user = (description: string, headers: Record<string, unknown> = {}) => ({
  description,
  headers: { ...commonHeaders, ...etag, ...headers },
  content: json('User', alice),
})
const parameter = (place: 'header' | 'query', name: string, description: string, schema: object, example: unknown) => ({
  name,
  in: place,
  description,
  schema,
  example,
})
const string = { type: 'string' }

const validation = {
  type: ProblemType.validation,
  detail: 'email must be an email address',
  errors: [{ pointer: '/email', detail: 'must be an email address' }],
}
const keyReused = {
  type: ProblemType.idempotencyKeyReused,
  detail: 'This Idempotency-Key has already created a user from another body.',
  instance: '/users',
}

/** What the operations share. */
export const userComponents = {
  parameters: {
    UserId: {
      name: 'id',
      in: 'path',
      required: true,
      schema: { type: 'integer', format: 'int64', minimum: 1, maximum: MAX_ID },
      example: 1,
    },
    IfMatch: parameter('header', 'If-Match', 'Only if the user is still at one of these versions.', string, '"1"'),
    IfNoneMatch: parameter('header', 'If-None-Match', 'Only if the user is at none of these versions.', string, '"2"'),
  },
  headers: { ETag: header("The user's version.", '"1"') },
  responses: {
    UserNotFound: problemOf(404, 'There is no user with this id.', {
      missing: { detail: 'There is no user with this id.' },
    }),
    UserConflict: problemOf(409, 'Another user has this username or email: `errors` says which.', {
      taken: {
        type: ProblemType.conflict,
        detail: 'Another user has this email.',
        errors: [{ pointer: '/email', detail: 'is taken by another user' }],
      },
    }),
    PreconditionFailed: problemOf(412, "The user's version does not meet If-Match, or If-None-Match on a change.", {
      stale: { detail: "The user's version does not meet the condition of the request." },
    }),
    BodyTooLarge: problemOf(413, 'The body is too large.', {
      large: { detail: 'The body must have at most 262144 bytes.' },
    }),
    UnsupportedMediaType: problemOf(415, 'The body is of another media type, in another charset or compressed.', {
      type: { detail: 'The body must be application/json in UTF-8.' },
    }),
    InvalidUser: problemOf(422, 'The body breaks a rule: `errors` points at each fault.', { validation }),
    UserNotCreated: problemOf(
      422,
      'The body breaks a rule: `errors` points at each fault. Or the Idempotency-Key was used with another body: `type` tells.',
      { validation: { ...validation, instance: '/users' }, keyReused },
    ),
  },
}

const bodyProblems = {
  413: ref('responses', 'BodyTooLarge'),
  415: ref('responses', 'UnsupportedMediaType'),
  422: ref('responses', 'InvalidUser'),
}
const changeProblems = {
  404: ref('responses', 'UserNotFound'),
  412: ref('responses', 'PreconditionFailed'),
  ...commonProblems,
}
const conflict = ref('responses', 'UserConflict')
const conditions = [ref('parameters', 'IfMatch'), ref('parameters', 'IfNoneMatch')]
const tags = ['users']

/** What the description says of the routes in routes.ts. */
export const userPaths = {
  '/users': {
    get: {
      operationId: 'listUsers',
      summary: 'List users by id, one page at a time, or look one up',
      description: `With \`Accept: ${NDJSON_MEDIA_TYPE}\` the answer is a stream of all users, or of those after \`cursor\`, one JSON object per line; no other parameter goes with it. If it fails half-way, a problem is its last line.`,
      tags,
      parameters: [
        parameter(
          'query',
          'limit',
          'Users per page.',
          { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT },
          10,
        ),
        parameter('query', 'cursor', '`next` of the previous page.', string, encodeCursor(10)),
        parameter('query', 'username', 'Only the user with this name, whatever its case.', string, alice.username),
        parameter('query', 'email', 'Only the user with this address, whatever its case.', string, alice.email),
      ],
      responses: {
        200: {
          description: 'A page of users; or all of them, as a stream.',
          headers: { ...commonHeaders, Link: header('The next page (RFC 8288).', '</users?cursor=...>; rel="next"') },
          content: {
            ...json('UserPage', { users: [alice], next: null }),
            [NDJSON_MEDIA_TYPE]: {
              schema: { type: 'string', description: 'One JSON object per line.' },
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
        parameter(
          'header',
          'Idempotency-Key',
          'Makes a retry safe: the same key and body get the same answer for as long as the user exists.',
          { type: 'string', minLength: 1, maxLength: 255, pattern: '^[!-~]+$' },
          '9f8e7d6c',
        ),
      ],
      requestBody: { required: true, content: json('NewUser', newAlice) },
      responses: {
        201: user('Created.', { Location: header('Where the user is.', '/users/1') }),
        409: conflict,
        ...bodyProblems,
        422: ref('responses', 'UserNotCreated'),
        ...commonProblems,
      },
    },
  },
  '/users/{id}': {
    parameters: [ref('parameters', 'UserId')],
    get: {
      operationId: 'getUser',
      summary: 'Get a user',
      tags,
      parameters: conditions,
      responses: {
        200: user('The user.'),
        304: { description: 'The caller has this version.', headers: { ...commonHeaders, ...etag } },
        ...changeProblems,
      },
    },
    put: {
      operationId: 'replaceUser',
      summary: "Replace a user's username and email",
      tags,
      parameters: conditions,
      requestBody: { required: true, content: json('NewUser', newAlice) },
      responses: { 200: user('Replaced.'), 409: conflict, ...bodyProblems, ...changeProblems },
    },
    patch: {
      operationId: 'patchUser',
      summary: "Change a user's username, email or both",
      description: 'The body is a JSON merge patch (RFC 7396).',
      tags,
      parameters: conditions,
      requestBody: { required: true, content: content(PATCH_MEDIA_TYPES, 'UserPatch', { email: alice.email }) },
      responses: {
        200: user('Changed; or unchanged, if the patch is empty.'),
        409: conflict,
        ...bodyProblems,
        ...changeProblems,
      },
    },
    delete: {
      operationId: 'deleteUser',
      summary: 'Delete a user',
      tags,
      parameters: conditions,
      responses: { 204: { description: 'Deleted.', headers: commonHeaders }, ...changeProblems },
    },
  },
}
