import { describeResource } from '../../../src/http/openapi.ts'
import { ListQuery, NoteInput, NotePatch, noteAnswer } from './schemas.ts'

export const describeNotes = () =>
  describeResource({
    name: 'note',
    plural: 'notes',
    path: '/notes',
    query: ListQuery,
    input: NoteInput,
    patch: NotePatch,
    item: noteAnswer(),
    example: {
      id: 1,
      userId: 1,
      text: 'Call back',
      createdAt: '2026-01-02T03:04:05.678Z',
      updatedAt: '2026-01-02T03:04:05.678Z',
    },
    refusals: [{ outcome: 'reference-missing', field: 'userId' }],
  })
