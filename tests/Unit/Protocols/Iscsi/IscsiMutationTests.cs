using System.Globalization;
using DiskImage.Block;
using DiskImage.Protocols.Iscsi;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>
/// What a target says with bytes changed, left out, doubled and cut: only our exception, little memory, no hang, and nothing is written
/// beside what was to be read. A sample; as many as DISKIMAGE_ISCSI_MUTATIONS says.
/// </summary>
public sealed class IscsiMutationTests
{
    private const int MostMemory = 16 << 20; // of one conversation
    private const int Guard = 4096;

    private static readonly ScriptedTarget s_target = new(new byte[64 << 10]);

    private static int Count => Environment.GetEnvironmentVariable("DISKIMAGE_ISCSI_MUTATIONS") is { Length: > 0 } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : 20_000;

    [Fact]
    public void Mutated_PDUs_lead_to_our_exception_or_nowhere()
    {
        int refused = 0, count = Count;
        for (int seed = 0; seed < count; seed++)
        {
            var random = new Random(seed);
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                Talk(random);
            }
            catch (DiskImageException)
            {
                refused++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}: {e}");
            }
            long took = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(took < MostMemory, $"seed {seed}: {took:#,0} bytes of memory for one conversation");
        }
        Assert.InRange(refused, count / 10, count);
    }

    private static void Talk(Random random)
    {
        var target = new ScriptedTarget.Conversation(s_target);
        bool inLogin = random.Next(3) == 0;
        var login = new IscsiLogin("target", new IscsiWishes
        {
            InitiatorName = "iqn.2026-11.org.example:me", Target = ScriptedTarget.Name, SessionId = new byte[6],
        });
        var reader = new IscsiPduReader("target", login, IscsiWire.DefaultSegment, headerDigest: false, dataDigest: false);
        login.Start();
        for (int i = 0; i < 100 && !login.IsOver; i++)
        {
            byte[] answer = AnswerTo(target, login.TakeOutput().ToArray());
            Feed(reader, inLogin ? Mutated(answer, random) : answer, random);
        }
        if (!login.IsOver || login.Redirection is not null)
        {
            return;
        }
        IscsiAgreement agreed = login.Agreement with
        {
            InitialR2T = random.Next(2) == 0, ImmediateData = random.Next(2) == 0,
        };
        var session = new IscsiSession("target", agreed);
        var full = new IscsiPduReader("target", session, IscsiWire.LongestSegment, agreed.HeaderDigest, agreed.DataDigest);
        byte[] room = new byte[20_480 + (2 * Guard)];
        session.Begin(ScsiTask.In(1, ScsiCommands.Read(true, 3, 40), room.AsMemory(Guard, 20_480)));
        session.Begin(ScsiTask.Out(1, ScsiCommands.Write(true, 8, 100, fua: false), new byte[51_200]));
        session.Begin(ScsiTask.In(1, ScsiCommands.Inquiry(255), new byte[255]));
        session.Begin(ScsiTask.In(1, ScsiCommands.GetLbaStatus(0, 4096), new byte[4096]));
        session.BeginText(IscsiText.Write([new("SendTargets", "All")]));
        byte[] output = new byte[IscsiSession.LongestOutput];
        for (int i = 0; i < 200; i++)
        {
            int length = session.Fill(output);
            if (length == 0)
            {
                break;
            }
            Feed(full, inLogin ? AnswerTo(target, output[..length]) : Mutated(AnswerTo(target, output[..length]), random), random);
            if (random.Next(20) == 0)
            {
                Array.ForEach(session.TakeInFlight(), session.Abandon);
            }
            foreach (ScsiTask task in session.TakeAnswered())
            {
                _ = $"{task.Sense}";
            }
        }
        Assert.False(room.AsSpan(0, Guard).ContainsAnyExcept((byte)0) || room.AsSpan(Guard + 20_480).ContainsAnyExcept((byte)0));
    }

    private static byte[] AnswerTo(ScriptedTarget.Conversation target, byte[] sent)
    {
        var answer = new List<byte>();
        for (int at = 0; at + 48 <= sent.Length;)
        {
            int length = (sent[at + 5] << 16) | (sent[at + 6] << 8) | sent[at + 7];
            foreach (ScriptedTarget.Pdu pdu in target.Answer(sent[at..(at + 48)], sent.AsMemory(at + 48, length)))
            {
                answer.AddRange(target.Seal(pdu));
            }
            at += 48 + ((length + 3) / 4 * 4);
        }
        return [.. answer];
    }

    private static byte[] Mutated(byte[] bytes, Random random)
    {
        var changed = bytes.ToList();
        for (int i = random.Next(4); i > 0 && changed.Count > 0; i--)
        {
            int header = random.Next(Math.Max(1, changed.Count / 48)) * 48; // where fields are, more often than not
            int at = random.Next(3) == 0 ? random.Next(changed.Count) : Math.Min(changed.Count - 1, header + random.Next(48));
            switch (random.Next(6))
            {
                case 0:
                    changed[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    changed[at] = (byte)random.Next(256);
                    break;
                case 2:
                    changed[at] = random.Next(2) == 0 ? (byte)0xFF : (byte)0;
                    break;
                case 3:
                    changed.RemoveRange(at, Math.Min(random.Next(1, 60), changed.Count - at));
                    break;
                case 4:
                    changed.InsertRange(at, changed.GetRange(at, Math.Min(random.Next(1, 60), changed.Count - at)));
                    break;
                default:
                    changed.RemoveRange(at, changed.Count - at);
                    break;
            }
        }
        return [.. changed];
    }

    private static void Feed(IscsiPduReader reader, byte[] bytes, Random random)
    {
        for (int at = 0; at < bytes.Length;)
        {
            Span<byte> wanted = reader.Wanted.Span;
            Assert.False(wanted.IsEmpty);
            int count = Math.Min(random.Next(4) == 0 ? random.Next(1, 100) : int.MaxValue, Math.Min(wanted.Length, bytes.Length - at));
            bytes.AsSpan(at, count).CopyTo(wanted);
            reader.Advance(wanted, count);
            at += count;
        }
    }
}
