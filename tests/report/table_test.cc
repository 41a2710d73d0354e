#include "report/table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "report/text.h"
#include "report/validity.h"

namespace millrace::report {
namespace {

Table latencies() {
  Table table({{"name", Align::kLeft}, {"ms"}}, "Latency");
  table.add_row({"first", "1.5"});
  table.add_row({"长度", "20"});
  return table;
}

TEST(Text, WidthIsCountedInColumns) {
  EXPECT_EQ(display_width("plain"), 5);
  EXPECT_EQ(display_width("输入"), 4);
  EXPECT_EQ(display_width("e\xCC\x81"), 1);         // e and a combining acute
  EXPECT_EQ(display_width("\xF0\x9F\x98\x80"), 2);  // an emoji
  EXPECT_EQ(display_width("ＡＢ"), 4);              // full width
  EXPECT_EQ(display_width("a\xE2\x80\x8D"
                          "b"),
            2);  // zero width joiner
  EXPECT_EQ(display_width("\xFF"), 1);
}

TEST(Text, ControlCharactersAreShownNotObeyed) {
  EXPECT_EQ(printable("a\x1b[2Jb\nc\td"), "a\\x1b[2Jb\\nc\\td");
  EXPECT_EQ(printable("\xC2\x9B"
                      "0m"),
            "\\x9b0m");  // an eight-bit escape
  EXPECT_EQ(printable("\xE2\x80\xAE"
                      "evil"),
            "\\u202eevil");
  EXPECT_EQ(printable("输入 ok"), "输入 ok");
  EXPECT_EQ(printable("\xFF"), "\xEF\xBF\xBD");
}

TEST(Text, CutsNeverSplitACharacter) {
  EXPECT_EQ(cut_to_width("abcdef", 6), "abcdef");
  EXPECT_EQ(cut_to_width("abcdef", 4), "abc…");
  EXPECT_EQ(cut_to_width("输入长度", 4), "输…");
  EXPECT_EQ(cut_to_width("输入长度", 5), "输入…");
  EXPECT_EQ(cut_to_width("abc", 0), "");
}

TEST(Text, NumbersKeepTheirLeadingDigits) {
  EXPECT_EQ(format_number(1234.5678), "1,235");
  EXPECT_EQ(format_number(12.345678), "12.35");
  EXPECT_EQ(format_number(-0.00123456), "-0.001235");
  EXPECT_EQ(format_number(1.5e9), "1.500e+09");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(std::nan("")), "n/a");
  EXPECT_EQ(format_with_interval(2, Interval{1, 3}, 2), "2.0 [1.0, 3.0]");
  EXPECT_EQ(format_with_interval(2, std::nullopt, 2), "2.0 [?]");
}

TEST(Text, BarsFillInEighths) {
  EXPECT_EQ(progress_bar(0.5, 4), "██  ");
  EXPECT_EQ(progress_bar(0.125, 1), "▏");
  EXPECT_EQ(progress_bar(7, 2), "██");
  EXPECT_EQ(progress_bar(std::nan(""), 2), "  ");
  EXPECT_EQ(sparkline(std::vector<double>{9, 0, 1, 2}, 3), "▁▅█");
  EXPECT_EQ(sparkline(std::vector<double>{0, std::nan("")}, 3), "▁ ");
}

TEST(Table, ColumnsAlignWhateverTheScript) {
  EXPECT_EQ(to_text(latencies()), "Latency\nname    ms\n----------\nfirst  1.5\n长度    20\n");
}

TEST(Table, RulesAreAsLongAsRows) {
  Table table({{"a"}, {"b"}});
  table.add_row({"123", "45"});
  EXPECT_EQ(to_text(table), "  a   b\n-------\n123  45\n");
  EXPECT_EQ(to_text(table, {.lines = true}), "  a   b\n───────\n123  45\n");
}

TEST(Table, ATableOfInvalidFiguresSaysSo) {
  Table table = latencies();
  table.mark_invalid("late sends");
  EXPECT_NE(to_text(table).find("INVALID: late sends\n"), std::string::npos);
  EXPECT_NE(to_markdown(table).find("INVALID: late sends"), std::string::npos);
}

TEST(Table, CellsCannotBreakOutOfATable) {
  Table table({{"error", Align::kLeft}});
  table.add_row({"a|b\n\x1b[31m<b>"});
  EXPECT_EQ(to_text(table), "error\n" + std::string(16, '-') + "\na|b\\n\\x1b[31m<b>\n");
  EXPECT_EQ(to_markdown(table), "| error |\n| :-- |\n| a\\|b\\\\n\\\\x1b\\[31m\\<b> |\n");
}

TEST(Csv, QuotesWhatNeedsQuotes) {
  EXPECT_EQ(csv_row(std::vector<std::string>{"a", "b,c", "d\"e", "f\ng", " h", ""}),
            "a,\"b,c\",\"d\"\"e\",\"f\ng\",\" h\",\n");
  EXPECT_EQ(csv_row(std::vector<std::string>{"b,c", "d;e"}, {.separator = ';', .line_end = "\r\n"}), "b,c;\"d;e\"\r\n");
  EXPECT_EQ(to_csv(latencies(), {.byte_order_mark = true}), "\xEF\xBB\xBFname,ms\nfirst,1.5\n长度,20\n");
}

TEST(Csv, WhatIsWrittenIsReadBack) {
  const std::vector<std::vector<std::string>> rows = {{"a", "b,c"}, {"d\"e", ""}, {"", "f\r\ng"}, {"\"", "\n"}};
  for (std::string_view line_end : {"\n", "\r\n"}) {
    std::string text = "\xEF\xBB\xBF";
    for (const auto& row : rows) text += csv_row(row, {.line_end = line_end});
    const auto read = parse_csv(text);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(*read, rows);
  }
  EXPECT_EQ(*parse_csv("a,b"), (std::vector<std::vector<std::string>>{{"a", "b"}}));
  EXPECT_TRUE(parse_csv("")->empty());
}

TEST(Csv, AnyCellsAreReadBackAndAnyBytesAreJudged) {
  constexpr std::string_view kAlphabet = "\",;\r\n ab\xEF\xBB\xBF";
  Random random(6);
  const auto text_of = [&](uint32_t longest) {
    std::string text(random.below(longest), ' ');
    for (char& c : text) c = kAlphabet[random.below(kAlphabet.size())];
    return text;
  };
  for (int trial = 0; trial < 3000; ++trial) {
    const size_t columns = 1 + random.below(4);
    std::vector<std::vector<std::string>> rows(1 + random.below(4), std::vector<std::string>(columns));
    std::string text = "\xEF\xBB\xBF";
    for (auto& row : rows) {
      for (std::string& cell : row) cell = text_of(6);
      text += csv_row(row);
    }
    ASSERT_EQ(*parse_csv(text), rows) << text;
    const auto read = parse_csv(text_of(40));
    if (!read.ok()) {
      EXPECT_EQ(read.status().message().substr(0, 9), "CSV line ");
    }
  }
}

TEST(Csv, BrokenQuotesAreNamedByLine) {
  EXPECT_EQ(parse_csv("a,b\n\"c,d\n").status().message(), "CSV line 2: a quote opens here and never closes");
  EXPECT_NE(parse_csv("a\n\"b\"c\n").status().message().find("CSV line 2: text follows"), std::string::npos);
}

TEST(Validity, OneRedItemInvalidates) {
  Validity validity;
  EXPECT_TRUE(validity.valid());
  validity.add({"client CPU", "12 %", "below 80 %", Mark::kGood});
  validity.add({"cached tokens", "not reported", "", Mark::kUnknown});
  EXPECT_TRUE(validity.valid());
  validity.add({"late sends", "31 %", "below 1 %", Mark::kBad});
  EXPECT_FALSE(validity.valid());
  EXPECT_EQ(validity.reason(), "late sends is 31 % (wanted: below 1 %)");
  EXPECT_EQ(to_json(validity)["items"][2]["mark"], "INVALID");
  EXPECT_NE(to_text(to_table(validity)).find("late sends     31 %          below 1 %   INVALID"), std::string::npos);
}

}  // namespace
}  // namespace millrace::report
